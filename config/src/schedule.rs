//! What the agent and its clients tell each other about schedules: builds that are
//! asked for by the clock.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::builds::{Request, Submitter};
use crate::names::{BuildId, ScheduleName};

/// How many schedules there are, at the most.
pub const SCHEDULES_MAX: u32 = 1000;

/// Asks for a schedule. The sources of the build have been handed in before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// What it is called.
    pub name: ScheduleName,
    /// When it runs.
    pub timing: Timing,
    /// What it asks for whenever it runs.
    pub build: Request,
    /// Whether it takes the place of the one of its name.
    #[serde(default)]
    pub replace: bool,
    /// Whether its machine and its toolchain may still be missing.
    #[serde(default)]
    pub unchecked: bool,
    /// Whether it is only to be told what would become of it; its sources need not be
    /// there then.
    #[serde(default, rename = "rehearse")]
    pub dry_run: bool,
}

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Timing {
    /// Once.
    At(Timestamp),
    /// Whenever so much time has passed, counted from when it was added.
    Every(SignedDuration),
    /// Whenever a clock shows what the pattern says.
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

/// A pattern of cron, and whose clock it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Minute, hour, day of the month, month, day of the week: `0 3 * * MON-FRI`.
    pub pattern: String,
    /// The time zone: `Europe/Berlin`; the host's when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// What it is called.
    pub name: ScheduleName,
    /// When it runs.
    pub timing: Timing,
    /// What it asks for whenever it runs.
    pub build: Request,
    /// In whose name it asks.
    pub submitter: Submitter,
    /// When it was added.
    pub added: Timestamp,
    /// All of its times until then are over: it has run for them, or was not there.
    pub since: Timestamp,
    /// How it ran last, if it ever did.
    pub last: Option<Run>,
    /// When it runs next; never when there is none.
    #[serde(default)]
    pub next: Option<Timestamp>,
}

/// What became of a schedule when it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// For which of its times; none when somebody ran it by hand.
    pub due: Option<Timestamp>,
    /// When.
    pub at: Timestamp,
    /// What became of it.
    pub result: RunResult,
    /// The build that it made or found.
    pub build: Option<BuildId>,
    /// Why there is no new build; empty when there is one.
    pub message: String,
}

/// What becomes of a schedule when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunResult {
    /// There is a new build.
    Submitted,
    /// A build that is under way already is as good.
    #[serde(rename = "attached")]
    Coalesced,
    /// There is no build.
    Failed,
}

impl RunResult {
    /// All of them, with the words for them.
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

/// The query of `GET /api/v1/schedules`, which are told in the order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Page {
    /// Go on after this name of an earlier answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<ScheduleName>,
    /// How many; all when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_written_so() {
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
