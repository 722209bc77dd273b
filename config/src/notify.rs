//! Notifications: when a rule is to tell of the end of a build or of a problem of the host, and the state of
//! rules.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::Build;
use crate::doctor::Id;
use crate::names::{BuildId, NotifyName};
use crate::settings::NotifyOn;
use crate::task::Outcome;

/// The kind of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotifyKind {
    /// A package failed.
    #[serde(rename = "build.failed")]
    Failed,
    /// A package succeeded that had failed before.
    #[serde(rename = "build.fixed")]
    Fixed,
    /// A build ended otherwise.
    #[serde(rename = "build.finished")]
    Finished,
    /// A problem of the host began.
    #[serde(rename = "problem.began")]
    ProblemBegan,
    /// A problem of the host ended.
    #[serde(rename = "problem.ended")]
    ProblemEnded,
    /// An administrator tries a rule.
    #[serde(rename = "test")]
    Test,
}

/// A problem of the host, as a notification tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind, by the doctor's name.
    pub id: Id,
    /// The subject; empty for a kind of which all subjects are one problem.
    pub subject: String,
    /// The evidence when it began.
    pub proof: String,
    /// The advice to the operator.
    pub advice: String,
    /// The time at which it began.
    pub since: Timestamp,
}

impl Problem {
    /// Returns true if the other one is about the same kind and subject.
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.subject == other.subject
    }
}

/// Returns the notifications after which a recipient who was told of the problems `told` knows those that
/// are `open`: the ends first.
pub fn changes(told: &[Problem], open: &[Problem]) -> Vec<(NotifyKind, Problem)> {
    let is_in = |problem: &Problem, all: &[Problem]| all.iter().any(|it| it.is_same(problem));
    let ended = told.iter().filter(|it| !is_in(it, open));
    let begun = open.iter().filter(|it| !is_in(it, told));
    let ended = ended.map(|it| (NotifyKind::ProblemEnded, it.clone()));
    ended
        .chain(begun.map(|it| (NotifyKind::ProblemBegan, it.clone())))
        .collect()
}

/// The state of a package on a machine, by its last builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageState {
    /// True if the package can be built.
    pub good: bool,
    /// The build since which that is so.
    pub build: BuildId,
    /// The time of its end.
    pub since: Timestamp,
}

/// Returns true if the end of a build tells that its package is good, false if it tells that it
/// fails, and `None` if it tells neither: the build did nothing, or was stopped on request.
pub fn verdict(outcome: Option<Outcome>, is_canceled: bool) -> Option<bool> {
    match outcome? {
        Outcome::Success | Outcome::Warning => Some(true),
        Outcome::Error | Outcome::Abnormal => Some(false),
        // A time limit ends a build as one that is canceled.
        Outcome::Abort if !is_canceled => Some(false),
        Outcome::Abort | Outcome::Skip | Outcome::Interrupt => None,
    }
}

/// Returns the kind of notification that a rule sends after a verdict on a package whose state was
/// `before`; `None` if it sends none.
pub fn decide(on: NotifyOn, before: Option<bool>, verdict: Option<bool>) -> Option<NotifyKind> {
    let kind = match (before, verdict) {
        (_, Some(false)) => NotifyKind::Failed,
        (Some(false), Some(true)) => NotifyKind::Fixed,
        (_, _) => NotifyKind::Finished,
    };
    let is_sent = match on {
        NotifyOn::Always => true,
        NotifyOn::Never => false,
        NotifyOn::Failure => kind == NotifyKind::Failed,
        // A package that is first seen is expected to be good.
        NotifyOn::Change => verdict.is_some_and(|good| good != before.unwrap_or(true)),
    };
    is_sent.then_some(kind)
}

/// The content of a notification, in the form of the Standard Webhooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: NotifyKind,
    /// The time of the end of the build, or of the begin or end of the problem.
    pub timestamp: Timestamp,
    /// The rest.
    pub data: NoticeData,
}

/// The data of a notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeData {
    /// The rule.
    pub rule: NotifyName,
    /// The state of the package before this build; `None` if it had none.
    #[serde(default)]
    pub before: Option<PackageState>,
    /// The record of the build; `None` in a test, and if it is about a problem.
    #[serde(default)]
    pub build: Option<Box<Build>>,
    /// The problem of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The state of a rule for notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyStatus {
    /// The name.
    pub name: NotifyName,
    /// `webhook` or `mail`.
    pub kind: String,
    /// The address without a password, or the addresses.
    pub to: String,
    /// `change`, `failure`, `always` or `never`.
    pub on: String,
    /// The patterns of the problems of the host that are told as well.
    #[serde(default)]
    pub problems: Vec<String>,
    /// The time of the last delivery.
    #[serde(default)]
    pub delivered: Option<Timestamp>,
    /// The number of notifications that wait for delivery.
    pub waiting: u32,
    /// The number of recorded notifications that were given up.
    pub given_up: u32,
    /// The failure of the last attempt; empty after a delivery.
    #[serde(default)]
    pub failure: String,
}

/// The result of a test of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyTest {
    /// True if the recipient accepted the notification.
    pub delivered: bool,
    /// The answer, or the failure.
    pub answer: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A recipient who follows the notifications of a rule `change` knows the state of a package.
        #[test]
        fn changes_tell_the_state(verdicts in prop::collection::vec(prop::option::of(any::<bool>()), 0..30)) {
            let (mut state, mut told) = (None, true);
            for verdict in verdicts {
                let kind = decide(NotifyOn::Change, state, verdict);
                match kind {
                    Some(NotifyKind::Failed) => { prop_assert!(told); told = false; }
                    Some(NotifyKind::Fixed) => { prop_assert!(!told); told = true; }
                    Some(other) => prop_assert!(false, "{other:?}"),
                    None => {}
                }
                state = verdict.or(state);
                prop_assert_eq!(told, state.unwrap_or(true));
                let failure = decide(NotifyOn::Failure, state, verdict);
                prop_assert_eq!(failure.is_some(), verdict == Some(false));
                prop_assert!(decide(NotifyOn::Always, state, verdict).is_some());
                prop_assert!(decide(NotifyOn::Never, state, verdict).is_none());
            }
        }
    }

    #[test]
    fn a_recipient_is_told_of_each_begin_and_each_end_once() {
        let problem = |id, subject: &str, proof: &str| Problem {
            id,
            subject: subject.to_owned(),
            proof: proof.to_owned(),
            advice: String::new(),
            since: Timestamp::UNIX_EPOCH,
        };
        let full = problem(Id::LowSpace, "/volume", "3 MiB");
        let fuller = problem(Id::LowSpace, "/volume", "1 MiB");
        let other = problem(Id::LowSpace, "/state", "3 MiB");
        let (is_full, is_fuller) = (std::slice::from_ref(&full), std::slice::from_ref(&fuller));
        let begun = (NotifyKind::ProblemBegan, full.clone());
        assert_eq!(changes(&[], is_full), [begun]);
        assert_eq!(changes(is_full, is_fuller), []);
        let both = changes(is_full, std::slice::from_ref(&other));
        let expected = [
            (NotifyKind::ProblemEnded, full.clone()),
            (NotifyKind::ProblemBegan, other),
        ];
        assert_eq!(both, expected);
        assert_eq!(changes(is_full, &[])[0].0, NotifyKind::ProblemEnded);
    }

    #[test]
    fn a_build_that_was_stopped_on_request_tells_nothing() {
        assert_eq!(verdict(None, false), None);
        let abort = Some(Outcome::Abort);
        assert_eq!(verdict(abort, false), Some(false), "a time limit");
        assert_eq!(verdict(abort, true), None);
        assert_eq!(verdict(Some(Outcome::Warning), true), Some(true));
    }
}
