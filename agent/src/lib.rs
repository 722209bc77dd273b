//! The host agent: bootstraps machines and runs builds in throw-away guests.
//!
//! [`daemon`] starts everything; [`scheduler`] is its one loop, which starts [`jobs`];
//! each job runs its guest through a [`session`].

pub mod api;
pub mod daemon;
pub mod housekeeping;
pub mod jobs;
pub mod pr_service;
pub mod records;
pub mod scheduler;
pub mod session;
pub mod state;
pub mod telemetry;
pub mod triggers;

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
