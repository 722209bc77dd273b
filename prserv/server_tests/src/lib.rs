//! The test harness of servers: a running program with its log ([`RunningProgram`]), PostgreSQL
//! ([`Cluster`]), receivers of notifications, and descriptions of interfaces ([`Description`]). Failures panic,
//! because only tests use it.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a failure fails the test"
)]

mod cluster;
mod openapi;
pub mod receivers;
mod running_program;

use std::thread;
use std::time::{Duration, Instant};

pub use cluster::Cluster;
pub use openapi::{Description, Operation};
pub use running_program::{RunningProgram, command};

/// The timeout of every wait. A correct run takes much less.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until a condition is true.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "timed out waiting until {what}");
        thread::yield_now();
    }
}
