//! The harness of the tests: hosts with real volumes that clean up after themselves, fakes, and
//! waits for states.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails at once when its harness cannot do what it asks for"
)]

pub mod agent;
pub mod api_host;
pub mod attacks;
pub mod backend_contract;
pub mod bbot;
pub mod bitbake;
pub mod controller;
pub mod crash_consistency;
pub mod farm;
pub mod fault_injection;
pub mod feeds;
pub mod flood;
pub mod footprint;
pub mod guest_files;
pub mod hosts;
pub mod image;
pub mod mount;
pub mod mutation;
pub mod net;
pub mod npm;
pub mod pr_process;
pub mod process_status;
pub mod random;
pub mod recorded_disk;
pub mod scripted_machines;
pub mod send_stream;
pub mod special_files;
pub mod ssh;
pub mod terminal;
pub mod transfers;
pub mod web_demo;
pub use server_tests::receivers as webhooks;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The longest time that [`wait_until`] waits. A busy machine needs minutes for what takes seconds
/// on a quiet one.
const WAIT_MAX: Duration = Duration::from_mins(4);
/// The shortest and the longest interval between two polls. A poll may start a program, and many of
/// them would take the processors from the guest that is waited for.
const POLL_MIN: Duration = Duration::from_millis(5);
const POLL_MAX: Duration = Duration::from_secs(1);
/// The part of the time waited so far that passes until the next poll.
const POLL_PART: u32 = 50;

/// Waits until a condition holds, and panics with its description if it does not in time.
///
/// The condition must be a state that lasts until the test itself changes it: a state that can
/// pass between two polls makes the test depend on the speed of the machine.
pub fn wait_until(description: &str, condition: impl FnMut() -> bool) {
    wait_until_within(WAIT_MAX, description, condition);
}

/// Waits as [`wait_until`], with another limit.
pub fn wait_until_within(limit: Duration, description: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        let elapsed = began.elapsed();
        assert!(elapsed < limit, "timed out after {limit:?}: {description}");
        std::thread::sleep((elapsed / POLL_PART).clamp(POLL_MIN, POLL_MAX));
    }
}

/// Returns true if tests try every case, which takes minutes, instead of a sample.
pub fn is_long_run() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// Returns the path of a program of this workspace, which lies beside the running test.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    let directory = test.ancestors().nth(2).unwrap_or(&test);
    let program = directory.join(name);
    assert!(
        program.is_file(),
        "{} has not been built; run the tests by scripts/test",
        program.display()
    );
    program
}

/// Creates or replaces a file.
pub fn write_file(path: &Path, text: &str) {
    sys::file::replace(path, text.as_bytes()).expect("a file");
}
