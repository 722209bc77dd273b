//! The costs of guests, compared with the same operation without an agent in the same run. Called by
//! `scripts/bench`, in namespaces of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement ends at the first error, and its tables are its output"
)]

mod burst;
mod containers;
mod crawlers;
mod memory;
mod overhead;
mod ready;
mod startup;
mod tftp;

use std::path::Path;

use bench::agent_process::{AgentProcess, Installation};
use bench::guest_fixture::Machines;

const USAGE: &str = "usage: bench-guests startup WORK | burst WORK [PROGRAMS] | overhead WORK | \
                     crawlers WORK | ready WORK | idle WORK | tftp SERVERS | serve DIRECTORY";

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["startup", work] => startup(Path::new(work)),
        ["burst", work] => burst::measure(Path::new(work), None),
        ["burst", work, programs] => burst::measure(Path::new(work), Some(Path::new(programs))),
        ["overhead", work] => overhead(Path::new(work)),
        ["crawlers", work] => crawlers::measure(Path::new(work)),
        ["ready", work] => ready::measure(Path::new(work)),
        ["idle", work] => memory::idle_agent(Path::new(work)),
        ["tftp", servers] => tftp::compare(Path::new(servers)),
        ["serve", directory] => tftp::serve(Path::new(directory)),
        _ => panic!("{USAGE}"),
    }
}

/// Runs the measurements that need an agent with three machines: the virtual machines `frozen` and
/// `cold`, which differ in one line of their manifests, and `container`.
fn startup(work: &Path) {
    let agent = AgentProcess::start(Installation {
        // Each start is measured as a whole.
        settings: "guests.ready_max = 0\n".to_owned(),
        ..Installation::new(work, "machines")
    });
    agent.wait_until_ready(&["frozen", "cold", "container"]);
    let machines = Machines::open(&work.join("host/machines"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(startup::compare(&agent, &machines));
    runtime.block_on(containers::compare(&agent, &machines));
    memory::agent_with_guests(&agent);
}

/// Measures the overhead of builds over the time of their guests.
fn overhead(work: &Path) {
    let agent = AgentProcess::start(Installation {
        settings: "guests.ready_max = 0\n".to_owned(),
        ..Installation::new(work, "machines")
    });
    agent.wait_until_ready(&["frozen", "container"]);
    overhead::measure(&agent, &["container", "frozen"]);
}
