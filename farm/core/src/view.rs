//! The view of a farm that clients get: builds and their attempts, hosts, machines, the queue.

use std::fmt;
use std::str::FromStr;

use config::builds::{Priority, Submitter, Target};
use config::schedule::Run;
use config::task::Outcome;
use config::tokens::{Scope, TokenName};
use config::{BuildId, MachineName, ProjectName, ScheduleName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::messages::{Message, Subject};
use crate::schedules::{self, Schedule, ScheduleRow};
use crate::{Epoch, Requirements, Revision};

mod hosts;
mod told;
mod trials;

pub use hosts::{
    HostQuery, HostView, MachineView, NAMED_MAX, RevisionView, WindowView, machines,
    unlike_machines, window_refusal,
};
pub use trials::{BuildTrial, TrialView};

/// The largest number of builds on a page.
pub const LISTED_MAX: u32 = 1000;
/// The number of builds on a page if nothing else is asked for.
pub const LISTED: u32 = 50;

/// The state of a build in a farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// It waits for a host.
    Queued,
    /// A host has its lease.
    Running,
    /// It has an outcome.
    Finished,
}

impl BuildState {
    /// All states, with their names.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Queued, "queued"),
        (Self::Running, "running"),
        (Self::Finished, "finished"),
    ];
}

impl fmt::Display for BuildState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(state, _)| state == self);
        f.pad(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for BuildState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(state, _)| *state).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("builds of a farm are {names}, not {text}")
        })
    }
}

/// The query of `GET /farm/v1/builds`. A filter that is `None` matches all builds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BuildQuery {
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<BuildState>,
    /// The machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// The target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<Target>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// The submitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// The host that has, or had, the last lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The build whose number is greater.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<BuildId>,
    /// The length of the page; by default [`LISTED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

impl BuildQuery {
    /// Returns the largest number of builds on the page.
    pub fn count(&self) -> u32 {
        self.count.unwrap_or(LISTED).min(LISTED_MAX)
    }
}

/// A page of builds, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildPage {
    /// The builds.
    pub builds: Vec<BuildView>,
    /// The value of `before` for the next page; `None` on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<BuildId>,
}

/// A build of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildView {
    /// The number.
    pub build: BuildId,
    /// The names of what is built.
    #[serde(flatten)]
    pub subject: Subject,
    /// The submitter.
    pub submitter: Submitter,
    /// The priority.
    pub priority: Priority,
    /// The needs.
    pub requirements: Requirements,
    /// The state.
    pub state: BuildState,
    /// The outcome of a finished build.
    pub outcome: Option<Outcome>,
    /// The sentence of the host, or of the farm, about the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// True if it was canceled.
    pub canceled: bool,
    /// The host that has the lease, or that had the last one.
    pub host: Option<String>,
    /// The number of claims.
    pub epoch: Epoch,
    /// The revision of the machine in the last attempt.
    pub revision: Option<Revision>,
    /// The number of attempts whose host or guest was lost.
    pub losses: u64,
    /// The time of submission.
    pub submitted: Timestamp,
    /// The time of the last claim.
    pub claimed: Option<Timestamp>,
    /// The time of the result.
    pub finished: Option<Timestamp>,
    /// The reason for which it waits, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The seconds that such builds took lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_seconds: Option<u64>,
    /// The place of the log and the artifacts of a build that has ended, in a farm with an object store. Lists
    /// leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesPlace>,
    /// The attempt on a revision on trial, if there was one. Lists leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<BuildTrial>,
    /// The attempts that were lost, in order. Lists leave them out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostAttempt>,
}

impl BuildView {
    /// Returns the name of the build's subject; that of its machine if it has none.
    pub fn title(&self) -> &str {
        let target = self.subject.target.as_ref().map(Target::as_str);
        target.unwrap_or_else(|| self.requirements.machine.as_str())
    }

    /// Returns the seconds from the last claim to the result, or to a time while it runs.
    pub fn seconds(&self, now: Timestamp) -> Option<u64> {
        let end = self
            .finished
            .or((self.state == BuildState::Running).then_some(now));
        let seconds = end?.duration_since(self.claimed?).as_secs();
        Some(u64::try_from(seconds).unwrap_or(0))
    }
}

/// The place of the log and the artifacts of a build that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FilesPlace {
    /// The host that ran it, and no other place.
    Host,
    /// The host, until they are in the object store.
    Waiting,
    /// The object store.
    Stored,
    /// No place: the host did not have them any more when they were to be stored.
    Lost,
}

impl FilesPlace {
    /// Returns the place in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Host => "on its host",
            Self::Waiting => "on its host, until they are in the object store",
            Self::Stored => "in the object store",
            Self::Lost => {
                "nowhere any more: its host did not have them when they were to be stored"
            }
        }
    }
}

/// An attempt that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostAttempt {
    /// The claim.
    pub epoch: Epoch,
    /// The host.
    pub host: Option<String>,
    /// The time of the claim.
    pub claimed: Option<Timestamp>,
    /// The time at which the farm took the lease back.
    pub ended: Timestamp,
    /// True if the host gave the lease back; false if it gave no sign of life.
    pub is_released: bool,
}

impl LostAttempt {
    /// Returns the reason for the loss.
    pub fn reason(&self) -> &'static str {
        if self.is_released {
            "the host lost the guest and gave the build back"
        } else {
            "the host gave no sign of life for a whole lease"
        }
    }
}

/// The queue of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// The time of the view, by the clock of the database.
    pub at: Timestamp,
    /// The number of builds that wait.
    pub queued: u64,
    /// The time of submission of the oldest one.
    pub oldest: Option<Timestamp>,
    /// The number of builds with a lease.
    pub running: u64,
    /// The number of hosts that are alive and take builds.
    pub hosts_alive: u64,
    /// The first builds that wait, the oldest first, with their reasons.
    pub waiting: Vec<BuildView>,
}

/// A schedule of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// The schedule.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// True if it does not run by the clock.
    #[serde(rename = "paused")]
    pub is_paused: bool,
    /// The time of its addition.
    pub added: Timestamp,
    /// The mark: no run is due for any time up to this one.
    pub since: Timestamp,
    /// The last run.
    pub last: Option<Run>,
    /// The time of the next run.
    pub next: Option<Timestamp>,
}

impl ScheduleView {
    /// Returns the time of the next run, which may have passed; `None` while it is paused.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let row = ScheduleRow {
            name: self.schedule.name.clone(),
            timing: self.schedule.timing.clone(),
            added: self.added,
            since: self.since,
        };
        schedules::next(&row, now).filter(|_| !self.is_paused)
    }
}

/// A project of a farm: the builds and schedules that have its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectView {
    /// The name.
    pub name: ProjectName,
    /// The number of builds that wait or run.
    pub unfinished: u64,
    /// The last build with an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<BuildView>,
    /// The last build that succeeded, if that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<BuildView>,
    /// The names of its schedules.
    pub schedules: Vec<ScheduleName>,
}

impl ProjectView {
    /// Returns the last build that succeeded.
    pub fn good(&self) -> Option<&BuildView> {
        let is_good =
            |it: &&BuildView| matches!(it.outcome, Some(Outcome::Success | Outcome::Warning));
        self.last_good
            .as_ref()
            .or(self.last.as_ref())
            .filter(is_good)
    }
}

/// A token of a client, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// The name.
    pub name: TokenName,
    /// The rights.
    pub scope: Scope,
    /// The time at which it was made.
    pub created: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_that_they_are_parsed_from() {
        for (state, name) in BuildState::ALL {
            assert_eq!(name.parse(), Ok(state));
            assert_eq!(state.to_string(), name);
        }
        assert!(
            "starting"
                .parse::<BuildState>()
                .unwrap_err()
                .contains("queued, running")
        );
    }
}
