//! Notifications: when a rule is to tell of the end of a build, and the state of rules.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::Build;
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
    /// An administrator tries a rule.
    #[serde(rename = "test")]
    Test,
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
    /// The time of the end of the build.
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
    /// The record of the build; `None` in a test.
    #[serde(default)]
    pub build: Option<Box<Build>>,
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
    /// `change`, `failure` or `always`.
    pub on: String,
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
            }
        }
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
