//! The triggers of work: submissions, schedules, controllers, changed directories, revisions on other hosts.

pub(crate) mod controllers;
pub mod feeds;
pub mod fs_watch;
pub(crate) mod layers;
pub mod notifications;
mod outbox;
pub mod problems;
pub(crate) mod projects;
pub(crate) mod pull;
pub mod schedule;
pub mod submission;

/// Draws a random number.
fn draw() -> u64 {
    // Without randomness only the jitter is missing.
    sys::random::bytes().map_or(0, u64::from_ne_bytes)
}
