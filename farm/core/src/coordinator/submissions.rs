//! Builds and schedules with sources: they are acknowledged when their sources are safe.

use std::collections::BTreeSet;

use config::task::Digest;

use super::{FarmView, Step};
use crate::copies::{Copies, Copying, Next, next};
use crate::messages::{Reply, Submission};
use crate::operation::{Answer, Operation, Unknown};
use crate::schedules::{KEY_PREFIX, Schedule};

/// The most attempts of one operation.
const ATTEMPTS_MAX: u32 = 3;

/// A build or a schedule whose sources are being looked at or copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionHandling {
    /// The operation that adds it.
    adding: Operation,
    /// The idempotency key of the build. That of a schedule belongs to no build.
    key: String,
    digests: Vec<Digest>,
    failed: BTreeSet<Copying>,
    reason: String,
    attempts: u32,
}

impl SubmissionHandling {
    pub(super) fn of_build(submission: Submission) -> (Self, Step) {
        let key = submission.key.clone();
        let digests = submission.requirements.work.digests();
        Self::begin(Operation::Submit(submission), key, digests)
    }

    pub(super) fn of_schedule(schedule: Box<Schedule>, replaces: bool) -> (Self, Step) {
        let key = format!("{KEY_PREFIX}{}", schedule.name);
        let digests = schedule.requirements.work.digests();
        Self::begin(Operation::AddSchedule(schedule, replaces), key, digests)
    }

    fn begin(adding: Operation, key: String, digests: Vec<Digest>) -> (Self, Step) {
        let handling = Self {
            adding,
            key,
            digests,
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
            Ok(Answer::ScheduleAdded(added)) => Step::Reply(Reply::ScheduleAdded(added)),
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
        for digest in self.digests.clone() {
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
        Step::Ask(self.adding.clone())
    }

    fn look(&self) -> Step {
        Step::Ask(Operation::Copies {
            key: self.key.clone(),
            digests: self.digests.clone(),
        })
    }
}
