//! The administration API's messages about schedules, which submit builds at set times.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::builds::{Request, Submitter};
use crate::names::{BuildId, ProjectName, ScheduleName};
use crate::projects::{BitbakeTarget, LayerCommit};

/// The largest number of schedules.
pub const SCHEDULES_MAX: u32 = 1000;

/// A request to add a schedule. The sources of its build have been uploaded before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// The name.
    pub name: ScheduleName,
    /// The timing.
    pub timing: Timing,
    /// The build that each run submits.
    pub build: Request,
    /// The project that is built; `build` has no sources then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ScheduledProject>,
    /// Replaces a schedule of the same name.
    #[serde(default)]
    pub replace: bool,
    /// Allows a machine and a toolchain that do not exist yet.
    #[serde(default)]
    pub unchecked: bool,
    /// Returns the schedule as it would be, and adds nothing. The sources need not be
    /// uploaded.
    #[serde(default, rename = "rehearse")]
    pub dry_run: bool,
}

/// The timing of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Timing {
    /// One run.
    At(Timestamp),
    /// A run after every interval, counted from the addition of the schedule.
    Every(SignedDuration),
    /// A run at every time that matches a cron pattern.
    Cron(Cron),
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => write!(f, "at {time}"),
            Self::Every(span) => write!(f, "every {span:#}"),
            Self::Cron(Cron { pattern, zone }) => match zone {
                Some(zone) => write!(f, "cron {pattern} ({zone})"),
                None => write!(f, "cron {pattern}"),
            },
        }
    }
}

/// A cron pattern and its time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Minute, hour, day of the month, month, day of the week: `0 3 * * MON-FRI`.
    pub pattern: String,
    /// The time zone, such as `Europe/Berlin`; by default the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The name.
    pub name: ScheduleName,
    /// The timing.
    pub timing: Timing,
    /// The build that each run submits.
    pub build: Request,
    /// The project that each run resolves for the sources of its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ScheduledProject>,
    /// The submitter of its builds.
    pub submitter: Submitter,
    /// The time of its addition.
    pub added: Timestamp,
    /// The high-water mark: no run is due for any time up to this one.
    pub since: Timestamp,
    /// The last run.
    pub last: Option<Run>,
    /// The time of the next run.
    #[serde(default)]
    pub next: Option<Timestamp>,
}

/// The project of a schedule. Each run builds the commits that its branches have then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledProject {
    /// The name.
    pub name: ProjectName,
    /// The targets; those of the project if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<BitbakeTarget>,
    /// The commits that some layers are built at, in place of those of the project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub at: Vec<LayerCommit>,
}

/// A run of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The scheduled time; `None` for a manual run.
    pub due: Option<Timestamp>,
    /// The time of the run.
    pub at: Timestamp,
    /// The result.
    pub result: RunResult,
    /// The build that was created or found.
    pub build: Option<BuildId>,
    /// The reason why no build was created; may be empty.
    pub message: String,
}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// A build was created.
    Submitted,
    /// An equivalent unfinished build exists.
    #[serde(rename = "attached")]
    Coalesced,
    /// No build could be created.
    Failed,
}

impl RunResult {
    /// All results, with their names.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Submitted, "submitted"),
        (Self::Coalesced, "attached"),
        (Self::Failed, "failed"),
    ];
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(result, _)| result == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

/// The query of `GET /api/v1/schedules`. Schedules are listed in the order of their
/// names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// The name after which the page starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ScheduleName>,
    /// The length of the page; by default all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_serialized_and_displayed() {
        for (text, words) in [
            (
                r#"{"at":"2026-11-22T02:00:00Z"}"#,
                "at 2026-11-22T02:00:00Z",
            ),
            (r#"{"every":"PT6H"}"#, "every 6h"),
            (
                r#"{"cron":{"pattern":"0 3 * * *","zone":"Europe/Berlin"}}"#,
                "cron 0 3 * * * (Europe/Berlin)",
            ),
        ] {
            let timing: Timing = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&timing).unwrap(), text);
            assert_eq!(timing.to_string(), words);
        }
        for text in [
            r#"{"never": 1}"#,
            r#"{"every": "6 hours", "at": 1}"#,
            r#"{"cron": "0 3 * * *"}"#,
            r#"{"every": "now"}"#,
        ] {
            assert!(serde_json::from_str::<Timing>(text).is_err(), "{text}");
        }
    }
}
