//! The host agent: bootstraps machines and runs builds in temporary guests.
//!
//! [`daemon`] starts everything; [`scheduler`] is the loop that starts [`jobs`]; each job
//! runs its guest through a [`session`].

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
pub mod jobs;
pub mod scheduler;
pub mod state;
pub mod triggers;
