//! The facts about a build that Toaster's clients see.

use config::builds::{Build, Progress, State, Target};
use config::task::Outcome;
use config::{BuildId, MachineName, ProjectName, ToolchainName};
use jiff::Timestamp;

/// The facts about a build of a host or a farm.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// The number.
    pub id: BuildId,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain, which is Toaster's distro.
    pub toolchain: ToolchainName,
    /// The names of what is built.
    pub target: Target,
    /// The project.
    pub project: Option<ProjectName>,
    /// The submitter, which stands for the project of a build without one.
    pub submitter: String,
    /// The state.
    pub state: State,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The time of submission.
    pub submitted: Timestamp,
    /// The start of the last guest.
    pub started: Option<Timestamp>,
    /// The time of the first request of the last guest.
    pub contacted: Option<Timestamp>,
    /// The time at which the outcome was recorded.
    pub finished: Option<Timestamp>,
    /// The number of sources.
    pub sources: u32,
    /// The progress that was reported.
    pub progress: Progress,
}

impl Facts {
    /// Returns the start: that of the last guest, or the time of submission.
    pub fn start(&self) -> Timestamp {
        self.started.unwrap_or(self.submitted)
    }
}

impl From<&Build> for Facts {
    fn from(build: &Build) -> Self {
        Self {
            id: build.id,
            machine: build.machine.clone(),
            toolchain: build.toolchain.clone(),
            target: build.target.clone(),
            project: build.project.clone(),
            submitter: build.submitter.to_string(),
            state: build.state,
            outcome: build.outcome,
            submitted: build.submitted,
            started: build.started,
            contacted: build.first_contact(),
            finished: build.finished,
            sources: u32::try_from(build.sources.len()).unwrap_or(u32::MAX),
            progress: build.progress,
        }
    }
}
