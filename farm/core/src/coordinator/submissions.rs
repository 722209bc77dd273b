//! Submissions of builds with sources: they are acknowledged when their sources are safe.

use std::collections::BTreeSet;

use config::task::Digest;

use super::{FarmView, Step};
use crate::copies::{Copies, Copying, Next, next};
use crate::messages::{Reply, Submission};
use crate::operation::{Answer, Operation, Unknown};

/// The most attempts of one operation.
const ATTEMPTS_MAX: u32 = 3;

/// A submission whose sources are being looked at or copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionHandling {
    submission: Submission,
    failed: BTreeSet<Copying>,
    reason: String,
    attempts: u32,
}

impl SubmissionHandling {
    pub(super) fn begin(submission: Submission) -> (Self, Step) {
        let handling = Self {
            submission,
            failed: BTreeSet::new(),
            reason: String::new(),
            attempts: 1,
        };
        let step = handling.look();
        (handling, step)
    }

    pub(super) fn answered(&mut self, view: &FarmView, answer: Result<Answer, Unknown>) -> Step {
        match answer {
            Ok(Answer::Submitted(build)) => Step::Reply(Reply::Submitted(build)),
            Ok(Answer::Missing(digests)) => Step::Reply(Reply::NoSource(digests)),
            Ok(Answer::Copies(copies)) => self.decide(view, &copies),
            // The copies are looked at again, because a coordinator may have died or come back meanwhile.
            Err(Unknown) if self.attempts < ATTEMPTS_MAX => {
                self.attempts += 1;
                self.look()
            }
            Ok(_) | Err(Unknown) => Step::Reply(Reply::Unavailable),
        }
    }

    /// Continues after a copy was made, or could not be made for a reason.
    pub(super) fn copied(&mut self, copying: Copying, result: Result<(), String>) -> Step {
        if let Err(reason) = result {
            self.reason = reason;
            self.failed.insert(copying);
        }
        self.look()
    }

    fn decide(&mut self, view: &FarmView, copies: &Copies) -> Step {
        let mut missing = Vec::new();
        for digest in self.digests() {
            match next(&digest, copies, &view.keepers, &self.failed) {
                Next::Enough => {}
                Next::Copy(copying) => return Step::Copy(copying),
                Next::Missing => missing.push(digest),
                Next::Failed => {
                    let reason = self.reason.clone();
                    return Step::Reply(Reply::NotCopied(digest, reason));
                }
            }
        }
        if !missing.is_empty() {
            return Step::Reply(Reply::NoSource(missing));
        }
        Step::Ask(Operation::Submit(self.submission.clone()))
    }

    fn look(&self) -> Step {
        Step::Ask(Operation::Copies {
            key: self.submission.key.clone(),
            digests: self.digests(),
        })
    }

    fn digests(&self) -> Vec<Digest> {
        self.submission.requirements.work.digests()
    }
}
