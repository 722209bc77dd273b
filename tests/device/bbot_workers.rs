//! Machines of build2: an unmodified worker builds the tasks of a controller.

use std::io::Read;
use std::path::{Path, PathBuf};

use config::BuildId;
use config::builds::{Build, State};
use config::task::{Outcome, REPORT_BYTES_MAX};
use jobs::build::{report_to_controller, uploads};
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::bbot;

/// Builds tasks with these orders, and returns their builds and directories.
fn built(host: &mut AgentHost, orders: &[&str]) -> Vec<(Build, PathBuf)> {
    bbot::add_toolchain(host);
    host.start();
    host.stop(Signal::TERM);
    let tasks: Vec<_> = orders.iter().map(|order| bbot::task(order)).collect();
    let ids = bbot::give_tasks(host, &tasks);
    host.start();
    let end = |id: &BuildId| {
        let directory = host.state_directory().join(format!("builds/{id}"));
        (host.wait_for(id.0, State::Finished), directory)
    };
    ids.iter().map(end).collect()
}

/// Returns the report to the controller of a build.
fn report(build: &Build, directory: &Path) -> String {
    let outcome = build.outcome.unwrap();
    let report = report_to_controller(directory, outcome, &build.message).unwrap();
    report.unwrap()
}

/// Returns a file of an archive of a build.
fn packed(directory: &Path, archive: &str, name: &str) -> String {
    let file = sys::trusted::open(directory.join("artifacts").join(archive)).unwrap();
    let mut archive = tar::Archive::new(file);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries
        .find(|it| it.path().unwrap().to_str() == Some(name))
        .unwrap();
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    text
}

/// Checks that the worker got its task byte for byte, and that its uploads are ready.
fn assert_uploads(build: &Build, directory: &Path, order: &str) {
    let uploads = uploads(directory).unwrap();
    let shown = uploads
        .iter()
        .map(|it| format!("{} {}", it.kind, it.instance));
    assert_eq!(
        shown.collect::<Vec<_>>(),
        ["bindist archive", "bindist debian"]
    );
    let result = packed(
        directory,
        "bindist-debian.tar",
        "debian/bindist-result.manifest",
    );
    assert_eq!(result, bbot::task(order), "the task as the worker got it");
    let target = packed(directory, "bindist-debian.tar", "debian/target/name.txt");
    assert_eq!(target, "x86_64-linux-gnu");
    let mut names: Vec<_> = build.artifacts.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["bindist-archive.tar", "bindist-debian.tar"]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_unmodified_worker_builds_the_tasks_of_a_controller_in_a_container() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    let orders = ["success", "warning", "old", "abnormal", "long"];
    let outcomes = [
        Outcome::Success,
        Outcome::Warning,
        Outcome::Success,
        Outcome::Abnormal,
        Outcome::Success,
    ];
    let builds = built(&mut host, &orders);
    for ((build, directory), (order, outcome)) in builds.iter().zip(orders.iter().zip(outcomes)) {
        assert_eq!(build.outcome, Some(outcome), "{order}: {build:?}");
        assert_eq!(build.attempts, 1, "{order}: {build:?}");
        assert!(build.sources.is_empty());
        let text = report(build, directory);
        let result = config::manifest::parse(&text).unwrap();
        assert_eq!(result[0].get("status"), Some(outcome.to_string().as_str()));
        assert_eq!(result[0].get("worker-checksum"), Some("1"));
        let log = result[0].get("update-log").unwrap();
        let bytes = bbot::task(order).len();
        assert!(
            log.starts_with(&format!("the task has {bytes} bytes\n")),
            "{order}"
        );
        assert!(
            log.contains("into one line of a manifest\npath is C:\\dir\\\n"),
            "{order}"
        );
        assert!(log.ends_with("last line"), "{order}");
        match *order {
            "old" => assert_eq!(
                text,
                sys::trusted::read_text(directory.join("result.manifest")).unwrap()
            ),
            "long" => assert!(text.len() <= REPORT_BYTES_MAX && log.contains("the host left out")),
            "abnormal" => assert!(build.artifacts.is_empty()),
            _ => assert_uploads(build, directory, order),
        }
    }
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_unmodified_worker_builds_the_task_of_a_controller_in_a_virtual_machine() {
    let mut host = AgentHost::new("");
    host.add("demo", |_| {});
    let builds = built(&mut host, &["warning"]);
    let (build, directory) = &builds[0];
    assert_eq!(build.outcome, Some(Outcome::Warning), "{build:?}");
    assert_uploads(build, directory, "warning");
    assert!(report(build, directory).contains("\nupdate-log:\n\\\nthe task has "));
    host.wait_until_torn_down();
}
