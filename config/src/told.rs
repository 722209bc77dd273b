//! The subjects of notifications: builds, and the kinds of problems of hosts and farms.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::{Build, Submitter};
use crate::doctor::Id;
use crate::names::{BuildId, MachineName, ProjectName, ToolchainName};
use crate::task::Outcome;

/// A kind of problem of a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FarmProblem {
    /// A host gives no sign of life.
    HostSilent,
    /// A host has other content than the published one.
    HostContent,
    /// A schedule has not run at its time.
    ScheduleLate,
    /// Files of builds wait for the object store.
    UploadsFailing,
    /// Builds wait for sources that no coordinator has.
    SourcesLost,
    /// A coordinator gives no sign of life.
    CoordinatorGone,
}

impl FarmProblem {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::HostSilent,
        Self::HostContent,
        Self::ScheduleLate,
        Self::UploadsFailing,
        Self::SourcesLost,
        Self::CoordinatorGone,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::HostSilent => "host-silent",
            Self::HostContent => "host-content",
            Self::ScheduleLate => "schedule-late",
            Self::UploadsFailing => "uploads-failing",
            Self::SourcesLost => "sources-lost",
            Self::CoordinatorGone => "coordinator-gone",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::HostSilent => "a host gives no sign of life; its builds go to others",
            Self::HostContent => {
                "a host has other content than the published one, or unknown content, and gets no builds of it"
            }
            Self::ScheduleLate => "a schedule has not run at its time",
            Self::UploadsFailing => "the files of builds wait for the object store for an hour",
            Self::SourcesLost => "builds wait for sources that no coordinator has which is alive",
            Self::CoordinatorGone => "a coordinator gives no sign of life",
        }
    }
}

/// A kind of problem: of a host, by the doctor's name, or of a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ProblemId {
    /// A problem of a host.
    Host(Id),
    /// A problem of a farm.
    Farm(FarmProblem),
}

impl ProblemId {
    /// Returns the name, which is stable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host(id) => id.kind().name,
            Self::Farm(problem) => problem.name(),
        }
    }

    /// Returns the meaning, a sentence without its full stop.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Host(id) => id.kind().meaning,
            Self::Farm(problem) => problem.meaning(),
        }
    }

    /// Returns true if the problem stops all builds, or has lasted when it is found.
    pub fn is_told_at_once(self) -> bool {
        matches!(
            self,
            Self::Host(Id::LowSpace | Id::ControllerUnreachable)
                | Self::Farm(FarmProblem::UploadsFailing)
        )
    }
}

impl fmt::Display for ProblemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The record of a build, of which a notification tells.
pub trait ToldBuild: Serialize {
    /// Returns the number.
    fn id(&self) -> BuildId;
    /// Returns the machine.
    fn machine(&self) -> &MachineName;
    /// Returns the package: the name of its target.
    fn package(&self) -> String;
    /// Returns the project.
    fn project(&self) -> Option<&ProjectName>;
    /// Returns the submitter.
    fn submitter(&self) -> &Submitter;
    /// Returns the name of the toolchain.
    fn toolchain(&self) -> &ToolchainName;
    /// Returns the outcome.
    fn outcome(&self) -> Option<Outcome>;
    /// Returns the message, or an empty text.
    fn message(&self) -> &str;
    /// Returns the time of its end.
    fn ended(&self) -> Timestamp;
    /// Returns the host of a farm that ran it.
    fn host(&self) -> Option<&str>;
}

impl ToldBuild for Build {
    fn id(&self) -> BuildId {
        self.id
    }

    fn machine(&self) -> &MachineName {
        &self.machine
    }

    fn package(&self) -> String {
        self.target.to_string()
    }

    fn project(&self) -> Option<&ProjectName> {
        self.project.as_ref()
    }

    fn submitter(&self) -> &Submitter {
        &self.submitter
    }

    fn toolchain(&self) -> &ToolchainName {
        &self.toolchain
    }

    fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    fn message(&self) -> &str {
        &self.message
    }

    fn ended(&self) -> Timestamp {
        self.finished.unwrap_or(self.submitted)
    }

    fn host(&self) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_farms_have_the_names_that_are_sent() {
        for problem in FarmProblem::ALL.map(ProblemId::Farm) {
            let sent = serde_json::to_value(problem).unwrap();
            assert_eq!(sent, problem.name());
            assert_eq!(serde_json::from_value::<ProblemId>(sent).unwrap(), problem);
        }
    }
}
