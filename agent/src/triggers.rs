//! The triggers of work: submissions, schedules, changed directories.

pub mod fs_watch;
pub mod schedule;
pub mod submission;
