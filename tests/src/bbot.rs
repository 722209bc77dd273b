//! The worker of build2's kind, `bbot-worker`: its toolchain, and tasks of controllers for it.

use std::path::Path;
use std::time::Duration;

use config::BuildId;
use config::builds::{Request, Submitter};
use jiff::Timestamp;
use records::Records;
use serde_json::json;
use sys::command;
use telemetry::Telemetry;

use crate::agent::AgentHost;

/// The program that the demo's machine starts, which starts the worker as a machine of build2 does.
const START: &str = include_str!("bbot/start");

/// A library that programs of Rust need, and that the demo's machine does not have.
const LIBRARY: &str = "/lib/x86_64-linux-gnu/libgcc_s.so.1";

/// Returns the manifest of a task that a worker of this kind builds as `order` says. Its first
/// line ends are those of Windows, and it has a value that no host knows.
pub fn task(order: &str) -> String {
    format!(
        ": 1\r\nname: hello\r\nversion: 1.0.0\nrepository-url: https://git.example.org/hello.git#master\n\
         # a comment\nrequires: {order}\nmachine: demo\ntarget: x86_64-linux-gnu\n\
         target-config: config.cxx=g++ \\\nconfig.cc.coptions=-O3\nnewer-value:\n\\\nof a later \\\n\
         version\n\\\nworker-checksum: 1\n"
    )
}

/// Makes the worker the toolchain `default` of a host.
pub fn add_toolchain(host: &AgentHost) {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = directory.path().join("bbot-worker");
    let mut strip = command::prepare("strip");
    strip
        .arg("-o")
        .arg(&worker)
        .arg(crate::program("bbot-worker"));
    command::run(strip, Duration::from_mins(1)).expect("a small program");
    host.add_worker_with("default", START, &[&worker, Path::new(LIBRARY)]);
}

/// Queues builds for the tasks of a controller on a host whose agent does not run, as the agent
/// does when it has taken them. Returns their numbers.
pub fn give_tasks(host: &AgentHost, tasks: &[String]) -> Vec<BuildId> {
    let state = host.state_directory();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let give = async {
        let path = state.join("records.sqlite3");
        let records = Records::open(&path, Telemetry::default()).expect("records");
        let mut ids = Vec::new();
        for (number, task) in tasks.iter().enumerate() {
            let id = records.reserve_id().await.expect("a number");
            let directory = state.join(format!("builds/{id}"));
            std::fs::create_dir_all(&directory).expect("a directory");
            crate::write_file(&directory.join("given.manifest"), task);
            let request = json!({"machine": "demo", "sources": []});
            let mut request: Request = serde_json::from_value(request).expect("a request");
            let given = json!({
                "controller": "main", "priority": 0, "session": format!("session/{number}"),
                "package": "hello", "version": "1.0.0", "expires": "2100-01-01T00:00:00Z",
            });
            request.controller = Some(serde_json::from_value(given).expect("a task"));
            let toolchain = "default".parse().expect("a name");
            let submitter = Submitter::root();
            let now = Timestamp::now();
            let leased =
                records.submit_leased(id, request, toolchain, submitter, String::new(), now);
            leased.await.expect("a record").expect("a new session");
            ids.push(id);
        }
        ids
    };
    runtime.block_on(give)
}
