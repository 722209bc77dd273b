//! The host agent: bootstraps machines and runs builds in temporary guests.
//!
//! [`daemon`] starts everything; [`scheduler`] is the loop that starts [`jobs`]; each job
//! runs its guest through a [`session`]. What all of them share is the [`state`].

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod api;
pub mod daemon;
pub mod housekeeping;
pub mod log;
pub mod scheduler;
mod service_manager;
pub mod settings_file;
pub mod triggers;
