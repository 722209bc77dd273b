//! What guests cost, beside the bare means of the same run: called by
//! `scripts/bench guests`, on one processor, in namespaces of its own.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that fails ends, and its table is its output"
)]

mod table;

mod ground;
mod host;

mod containers;
mod crowd;
mod overhead;
mod starts;
mod tftp;

use std::path::Path;

use ground::Ground;
use host::Agent;

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["starts", work] => starts(Path::new(work)),
        ["overhead", work] => overhead(Path::new(work)),
        ["rest", work] => crowd::at_rest(Path::new(work)),
        ["tftp", servers] => tftp::compare(Path::new(servers)),
        ["serve", directory] => tftp::serve(Path::new(directory)),
        _ => panic!(
            "usage: guests starts WORK | overhead WORK | rest WORK | tftp SERVERS | serve DIRECTORY"
        ),
    }
}

/// Everything that an agent with three machines is needed for: `frozen` and `cold`,
/// virtual machines that differ in one word, and `container`.
fn starts(work: &Path) {
    let agent = Agent::start(work, "machines");
    agent.wait_until_ready(&["frozen", "cold", "container"]);
    let ground = Ground::open(&work.join("host/machines"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(starts::compare(&agent, &ground));
    runtime.block_on(containers::compare(&agent, &ground));
    crowd::guests(&agent);
}

/// What builds cost over the guests' own time.
fn overhead(work: &Path) {
    let agent = Agent::start(work, "machines");
    agent.wait_until_ready(&["frozen", "container"]);
    overhead::measure(&agent, &["container", "frozen"]);
}
