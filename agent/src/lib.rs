//! The host agent: bootstraps machines and runs builds in throw-away guests.
//!
//! [`daemon`] starts everything; [`reconcile`] is its one loop, which begins
//! [`bootstrap`]s and [`builds`]; both run their guests through [`session`].

pub mod daemon;

pub mod host;

pub mod reconcile;

pub mod submission;

pub mod schedule;

pub mod drain;

pub mod watch;

pub(crate) mod room;

pub mod bootstrap;

pub mod builds;

pub mod frozen;

pub mod held;

pub mod attached;

pub mod session;

pub mod guest_tag;

pub mod control;

pub mod record;

pub mod console;

pub mod silence;

pub mod guest;

pub mod network;

pub mod dhcp;

pub mod dns;

pub mod tftp;

pub mod revisions;

pub mod records;

pub mod retention;

pub mod events;

pub mod metrics;

pub mod doctor;

pub mod api;

pub mod toaster;

/// Runs `work` where waiting for a disk holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends: nobody will ask for the answer.
            Err(_) => std::future::pending().await,
        },
    }
}

/// An error with everything that caused it, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
