//! Trials of revisions, as clients see them.

use std::fmt;

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

impl fmt::Display for BuildTrial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "on revision {}, which was on trial", self.revision.0)?;
        match self.outcome {
            Some(outcome) if self.is_repeated => {
                write!(f, ": {outcome}, so it runs again on the published one")
            }
            Some(outcome) => write!(f, ": {outcome}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TrialView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} ", self.revision.0)?;
        if let Some(verdict) = self.verdict {
            write!(f, "was {verdict}")?;
            return match &self.reason {
                Some(reason) => write!(f, ": {reason}"),
                None => Ok(()),
            };
        }
        let Self {
            terms,
            succeeded,
            needed,
            ..
        } = self;
        write!(
            f,
            "is on trial ({terms}): {succeeded} of {needed} builds have succeeded"
        )?;
        let others = [
            (self.running, "running"),
            (self.repeating, "repeated"),
            (self.strikes, "failed on it only"),
        ];
        for (number, what) in others.iter().filter(|(number, _)| *number > 0) {
            write!(f, ", {number} {what}")?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sentence_says_how_a_trial_stands() {
        let mut trial = TrialView {
            number: TrialNumber(1),
            revision: Revision(5),
            content: None,
            terms: "3 of 10".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            succeeded: 1,
            needed: 6,
            strikes: 1,
            running: 2,
            repeating: 0,
            ended: None,
            verdict: None,
            reason: None,
        };
        assert_eq!(
            trial.to_string(),
            "revision 5 is on trial (3 of 10): 1 of 6 builds have succeeded, 2 running, 1 failed on it only"
        );
        trial.verdict = Some(TrialVerdict::RolledBack);
        trial.reason = Some("token ann decided so".to_owned());
        assert_eq!(
            trial.to_string(),
            "revision 5 was rolled back: token ann decided so"
        );
    }

    #[test]
    fn a_build_says_that_it_ran_on_trial() {
        let said = |outcome, is_repeated| {
            let revision = Revision(5);
            let trial = BuildTrial {
                revision,
                outcome,
                is_repeated,
            };
            trial.to_string()
        };
        assert_eq!(said(None, false), "on revision 5, which was on trial");
        assert_eq!(
            said(Some(Outcome::Success), false),
            "on revision 5, which was on trial: success"
        );
        assert_eq!(
            said(Some(Outcome::Error), true),
            "on revision 5, which was on trial: error, so it runs again on the published one"
        );
    }
}
