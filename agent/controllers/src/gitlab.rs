//! The protocol of GitLab for runners: jobs, their logs, artifacts and final states, over HTTP with
//! JSON.
//!
//! A job becomes a [`Work`]: a script for a guest, what is masked in its log, and the archives that it
//! leaves. The [`Client`] does the requests, and blocks. Each job that was taken needs one final
//! state, also one that cannot be done here.

mod artifacts;
mod client;
mod dependencies;
mod ending;
mod images;
mod job;
mod progress;
mod runner;
mod script;
mod shell;
mod token;
mod trace;
mod variables;

use config::secrets::SecretValue;

pub use artifacts::Archive;
pub use client::{Client, Server, system_id};
pub use ending::{FailureReason, FinalState};
pub use images::machine;
pub use job::{Given, Hidden, Job, JobInfo, JobKey};
pub use progress::{JobState, Progress, ReportStep};
pub use runner::Gitlab;
pub use token::{TokenError, check as check_token};
pub use trace::{PIECE_BYTES_MAX, TraceAnswer, next_piece};

use variables::Variables;

/// The work of a job, for a guest.
#[derive(Debug, Clone)]
pub struct Work {
    /// The script, which is run as a file and has secrets.
    pub script: Hidden,
    /// The texts that the job's log must not have.
    pub masked: Vec<SecretValue>,
    /// The archives that the script may leave.
    pub archives: Vec<Archive>,
}

impl Work {
    /// Returns the work of a job of the GitLab at an address, whose directories are below `root` of the guest.
    ///
    /// # Errors
    /// The name of a masked variable whose value cannot be masked.
    pub fn of(job: &Job, server: &str, root: &str) -> Result<Self, String> {
        let variables = Variables::of(job, root);
        Ok(Self {
            script: Hidden::from(script::print(job, &variables, server, root).as_str()),
            masked: job.masked()?,
            archives: artifacts::archives(job, &variables),
        })
    }
}
