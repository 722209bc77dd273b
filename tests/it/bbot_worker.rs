//! The worker of build2's kind against the host's TFTP server, and what the host makes of the files
//! that it puts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use config::task::{self, Outcome, TaskResult};
use jobs::build::{UploadLimits, read_result, report_to_controller, uploads};
use sys::command;
use tests::bbot;
use tftp::server::{Namespace, Server};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_mins(1);
const LIMITS: UploadLimits = UploadLimits {
    bytes_max: 1 << 20,
    files_max: 100,
};
/// The size limit of a result.
const RESULT_BYTES_MAX: u64 = 16 << 20;

/// Runs the worker with a task whose files arrive in `directory`. Returns its exit status.
fn run(directory: &Path, task: &str) -> Option<i32> {
    let mut map = Namespace::new(1 << 20, 100);
    map.offer(task::TASK, task.to_owned());
    map.accept_artifacts(task::UPLOAD, directory.join(task::UPLOAD), 1 << 20);
    for name in [task::RESULT, task::RESULT_LZ4] {
        map.accept(name, directory.join(name), RESULT_BYTES_MAX);
    }
    let (sender, _events) = mpsc::channel(64);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(&[any], map, sender).unwrap();
    let mut worker = command::prepare(tests::program("bbot-worker"));
    let address = server.addresses()[0].to_string();
    worker.args(["--startup", "--tftp-host", &address]);
    worker.status().unwrap().code()
}

/// The directory of a build for a controller.
fn build(task: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("artifacts")).unwrap();
    tests::write_file(&directory.path().join("given.manifest"), task);
    directory
}

#[test]
fn each_end_of_a_worker_reaches_the_controller() {
    // The order to the worker, its exit status, the file with its result, the outcome, its uploads,
    // and whether the controller gets its text unchanged.
    for (order, exit, name, outcome, count, is_unchanged) in [
        ("success", 0, task::RESULT_LZ4, Outcome::Success, 2, true),
        ("warning", 0, task::RESULT_LZ4, Outcome::Warning, 2, true),
        ("old", 0, task::RESULT, Outcome::Success, 0, true),
        ("abnormal", 2, task::RESULT_LZ4, Outcome::Abnormal, 0, true),
        ("long", 0, task::RESULT_LZ4, Outcome::Success, 0, false),
    ] {
        let task = bbot::task(order);
        let directory = build(&task);
        let directory = directory.path();
        assert_eq!(run(directory, &task), Some(exit), "{order}");
        assert!(directory.join(name).is_file(), "{order}");
        let read = read_result(directory, &LIMITS).unwrap();
        assert_eq!(
            (read.result.status, read.faults.as_slice()),
            (outcome, [].as_slice())
        );
        assert_eq!(uploads(directory).unwrap().len(), count, "{order}");
        let report = report_to_controller(directory, outcome, "")
            .unwrap()
            .unwrap();
        let manifest = config::manifest::parse(&report).unwrap();
        assert_eq!(manifest[0].get("name"), Some("hello"), "{order}");
        let log = manifest[0].get("update-log").unwrap();
        assert!(
            log.starts_with(&format!("the task has {} bytes\n", task.len())),
            "{order}"
        );
        assert!(log.ends_with("last line"), "{order}");
        assert_eq!(!log.contains("the host left out"), is_unchanged, "{order}");
    }
}

#[test]
fn the_report_has_the_outcome_of_the_host() {
    let task = bbot::task("success");
    let directory = build(&task);
    assert_eq!(run(directory.path(), &task), Some(0));
    let report = report_to_controller(directory.path(), Outcome::Abort, "it was too slow");
    let report = report.unwrap().unwrap();
    assert!(report.contains("\nstatus: abort\n"), "{report}");
    assert!(
        report.contains("the host ended this build as abort: it was too slow"),
        "{report}"
    );
}

#[test]
fn the_bootstrap_manifest_of_the_worker_is_a_success() {
    let mut worker = command::prepare(tests::program("bbot-worker"));
    worker.arg("--bootstrap");
    let text = command::run(worker, LIMIT).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("libbutl-version: 0.17.0"), "{text}");
    let result = TaskResult::parse_bootstrap(&text).unwrap();
    assert_eq!(result.status, Outcome::Success);
}
