//! The test house's harness: real volumes that clean up after themselves, the
//! contract of pools, and waiting without sleeping blindly.

pub mod agent;
pub mod api_host;
pub mod backend_contract;
pub mod crash_consistency;
pub mod farm;
pub mod fault_injection;
pub mod footprint;
pub mod hosts;
pub mod mount;
pub mod net;
pub mod recorded_disk;
pub mod scripted_machines;
pub mod ssh;
pub mod terminal;

use std::time::{Duration, Instant};

/// Waits until something is so; panics with `what` after two minutes: a machine that is
/// busy with other things may need as long for what takes seconds.
///
/// # Panics
/// When it does not become so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited two minutes until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns true if every case is to be tried, which takes minutes, instead of a sample.
pub fn is_long() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// A program of this workspace, beside the test that runs.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> std::path::PathBuf {
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

/// Makes a file with some text.
///
/// # Panics
/// When it cannot.
#[expect(clippy::expect_used, reason = "a test cannot go on without it")]
pub fn put(path: &std::path::Path, text: &str) {
    sys::file::replace(path, text.as_bytes()).expect("a file");
}
