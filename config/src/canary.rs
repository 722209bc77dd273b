//! Trials of new revisions: a candidate serves a few builds before it becomes current.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{BuildId, ControllerName, Revision};
use crate::task::Outcome;

mod evidence;

pub use evidence::{Evidence, TrialBuild};

/// The largest number of builds that terms can name.
const BUILDS_MAX: u32 = 10_000;
/// The number of strikes that ends a trial, if it has so many builds.
const STRIKES_MAX: usize = 2;
/// The smallest number of guests that fail on a candidate alone before that ends its trial.
const LOST_GUESTS_MIN: usize = 3;

/// The terms of a trial, such as `3 of 10`: about 3 of every 10 builds run on the candidate, until
/// 3 have succeeded on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Terms {
    builds: u32,
    of: u32,
}

/// The refusal of terms that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a number of builds such as `3 of 10`, with 1 to 10000 builds of at least as many"
)]
pub struct TermsError(String);

impl Default for Terms {
    fn default() -> Self {
        Self { builds: 1, of: 1 }
    }
}

impl Terms {
    /// Returns the number of builds that must succeed on the candidate.
    pub fn builds(self) -> usize {
        self.builds as usize
    }

    /// Returns the number of strikes that rolls the candidate back.
    pub fn strikes_max(self) -> usize {
        STRIKES_MAX.min(self.builds())
    }

    /// Returns the number of guests that may fail on the candidate alone, for a reason that nobody
    /// knows, before it is rolled back.
    pub fn lost_guests_max(self) -> usize {
        LOST_GUESTS_MIN.max(self.builds())
    }

    /// Returns true if a build belongs to the share of the candidate. The choice depends on the
    /// build's number alone, so every agent makes the same one.
    pub fn select(self, build: BuildId) -> bool {
        // Mixed, because the builds of one machine may all have even numbers.
        let mixed = build.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        mixed % u64::from(self.of) < u64::from(self.builds)
    }
}

impl FromStr for Terms {
    type Err = TermsError;

    fn from_str(text: &str) -> Result<Self, TermsError> {
        let numbers = text.split_once(" of ").or_else(|| text.split_once('/'));
        let number = |text: &str| {
            let is_plain = text.bytes().all(|it| it.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        let parsed = numbers.and_then(|(builds, of)| {
            Some(Self {
                builds: number(builds)?,
                of: number(of)?,
            })
        });
        parsed
            .filter(|it| it.builds > 0 && it.builds <= it.of && it.of <= BUILDS_MAX)
            .ok_or_else(|| TermsError(text.chars().take(100).collect()))
    }
}

impl TryFrom<String> for Terms {
    type Error = TermsError;

    fn try_from(text: String) -> Result<Self, TermsError> {
        text.parse()
    }
}

impl From<Terms> for String {
    fn from(terms: Terms) -> Self {
        terms.to_string()
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.builds, self.of)
    }
}

/// The trial of a revision, as its machine's directory records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The terms.
    pub terms: Terms,
    /// The start, which distinguishes the trials of a machine.
    pub since: Timestamp,
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The end; `None` for a trial that has not been decided.
    #[serde(default)]
    pub end: Option<TrialEnd>,
    /// The farm that decides, with terms of its own; `None` if this host decides on `terms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<FarmTrial>,
}

impl Trial {
    /// Returns the decider.
    pub fn decider(&self) -> Decider {
        let terms = Decider::Host(self.terms);
        self.farm.clone().map_or(terms, Decider::Farm)
    }
}

/// A trial over all hosts of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FarmTrial {
    /// The controller that the farm is.
    pub controller: ControllerName,
    /// The number of the trial in the farm. A later trial has a higher one.
    pub number: u64,
}

/// The one who decides a trial. It is printed as the terms of a host, or as `farm ci decides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decider {
    /// This host, on these terms.
    Host(Terms),
    /// A farm, from the builds on all of its hosts.
    Farm(FarmTrial),
}

impl From<Terms> for Decider {
    fn from(terms: Terms) -> Self {
        Self::Host(terms)
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(terms) => terms.fmt(f),
            Self::Farm(trial) => write!(f, "farm {} decides", trial.controller),
        }
    }
}

/// The end of a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialEnd {
    /// The verdict.
    pub verdict: TrialVerdict,
    /// The reason.
    pub reason: String,
    /// The time.
    pub at: Timestamp,
}

/// The verdict on a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialVerdict {
    /// It has become current.
    Promoted,
    /// The current revision stays.
    RolledBack,
}

impl fmt::Display for TrialVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled back",
        })
    }
}

/// The attempt at a build that ran on a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialRun {
    /// The candidate.
    pub revision: Revision,
    /// The start of its trial.
    pub since: Timestamp,
    /// The result; `None` before the end of the attempt, and if a person canceled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TrialResult>,
}

/// The result of an attempt on a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TrialResult {
    /// The build succeeded.
    Succeeded,
    /// The build failed, and runs again on the current revision.
    Failed {
        /// The outcome on the candidate.
        outcome: Outcome,
        /// The reason.
        message: String,
    },
    /// The host failed, as far as it can tell; the build runs again on the current revision.
    HostFailed {
        /// The reason.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_have_two_spellings() {
        for text in ["3 of 10", "3/10"] {
            let terms: Terms = text.parse().unwrap();
            assert_eq!(terms.to_string(), "3 of 10");
        }
        for text in [
            "",
            "3",
            "0 of 10",
            "11 of 10",
            "3 of",
            "+3 of 10",
            "-3/10",
            "3 of 10001",
            "3 of 10 ",
            "3//10",
        ] {
            assert!(text.parse::<Terms>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trial_says_who_decides_and_old_files_are_of_the_host() {
        let old =
            r#"{"terms":"3 of 10","since":"2026-01-01T00:00:00Z","revision_uuid":"u","end":null}"#;
        let mut trial: Trial = serde_json::from_str(old).unwrap();
        assert_eq!(trial.decider().to_string(), "3 of 10");
        assert_eq!(serde_json::to_string(&trial).unwrap(), old);
        trial.farm = Some(FarmTrial {
            controller: "ci".parse().unwrap(),
            number: 7,
        });
        assert_eq!(trial.decider().to_string(), "farm ci decides");
        let text = serde_json::to_string(&trial).unwrap();
        assert!(text.ends_with(r#""farm":{"controller":"ci","number":7}}"#));
        assert_eq!(serde_json::from_str::<Trial>(&text).unwrap(), trial);
    }

    proptest! {
        #[test]
        fn printed_terms_are_read_again(builds in 1..500_u32, more in 0..500_u32) {
            let terms = Terms { builds, of: builds + more };
            prop_assert_eq!(terms.to_string().parse(), Ok(terms));
        }

        #[test]
        fn the_agreed_share_of_any_builds_is_selected(
            builds in 1..10_u32,
            more in 0..10_u32,
            first in 0..1_000_000_u64,
            step in 1..8_u64,
        ) {
            let terms = Terms { builds, of: builds + more };
            let ids = (0..2000).map(|it| BuildId(first + it * step));
            let selected = u32::try_from(ids.filter(|id| terms.select(*id)).count()).unwrap();
            let expected = 2000 * builds / terms.of;
            prop_assert!(selected.abs_diff(expected) < 300, "{} of {}", selected, expected);
        }
    }
}
