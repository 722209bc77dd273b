//! The triggers of work: submissions, schedules, controllers, changed directories, revisions on other hosts.

pub(crate) mod controllers;
pub mod fs_watch;
pub(crate) mod layers;
pub(crate) mod projects;
pub(crate) mod pull;
pub mod schedule;
pub mod submission;
