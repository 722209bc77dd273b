//! Trials of revisions, as clients see them.

use config::canary::{self, TrialVerdict};
use config::task::{Digest, Outcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Revision;
use crate::trials::{TrialNumber, TrialState};

/// The attempt at a build that ran on a revision on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildTrial {
    /// The revision.
    pub revision: Revision,
    /// The outcome on it; `None` while it runs, and if its host was silent.
    pub outcome: Option<Outcome>,
    /// True if the build failed on it, and therefore runs again on the published revision.
    #[serde(rename = "repeated")]
    pub is_repeated: bool,
}

/// The last trial of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialView {
    /// The number.
    pub number: TrialNumber,
    /// The revision.
    pub revision: Revision,
    /// The digest of its content manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The terms.
    pub terms: canary::Terms,
    /// The begin.
    pub since: Timestamp,
    /// The number of builds that succeeded on it.
    pub succeeded: usize,
    /// The number of builds that must succeed on it.
    pub needed: usize,
    /// The number of builds that failed on it and succeeded on the published revision.
    pub strikes: usize,
    /// The number of builds that run on it.
    pub running: usize,
    /// The number of builds that failed on it, and have not ended on the published revision.
    pub repeating: usize,
    /// The end; `None` while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// The verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<TrialVerdict>,
    /// The reason of the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&TrialState> for TrialView {
    fn from(state: &TrialState) -> Self {
        let (trial, evidence) = (&state.trial, state.evidence());
        let (verdict, reason) = trial.end.clone().unzip();
        Self {
            number: trial.number,
            revision: trial.candidate.revision,
            content: trial.candidate.content.clone(),
            terms: trial.terms,
            since: time(state.began_ms),
            succeeded: evidence.succeeded,
            needed: evidence.needed(),
            strikes: evidence.strikes.len(),
            running: evidence.running,
            repeating: evidence.repeating,
            ended: state.ended_ms.map(time),
            verdict,
            reason,
        }
    }
}

/// Returns a time that the store gave as milliseconds since 1970.
fn time(milliseconds: u64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds.cast_signed()).unwrap_or_default()
}
