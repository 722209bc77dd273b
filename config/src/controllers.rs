//! Controllers: servers that hand out tasks, and the priorities among them.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{BuildId, ControllerName, ToolchainName};

/// The error of parsing a priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the priority of a controller: up to four digits DCBA are expected, or five \
     FDCBA, where F is 0 or 1 and D is not 0 if F is 1"
)]
pub struct PriorityError(String);

/// The priority of a controller, `[F]DCBA` in decimal digits as in bbot.
///
/// Each level includes those before it, and is compared together with the levels above it: A orders
/// the requests; B also keeps lower controllers from being asked while a task runs; C may also
/// interrupt one task of a lower controller; D interrupts all of them. F gives the tasks all
/// processors.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct ControllerPriority(u32);

impl ControllerPriority {
    /// The value of F.
    const BOOST: u32 = 10_000;

    /// Returns true if tasks get all processors of the host.
    pub fn boosts(self) -> bool {
        self.0 >= Self::BOOST
    }

    /// Returns the rank among controllers: a higher one is asked first.
    pub fn preference(self) -> u32 {
        self.0 % Self::BOOST
    }

    /// Returns true if a controller of priority `other` is not asked while a task of this one runs.
    pub fn excludes(self, other: Self) -> bool {
        self.preference() / 10 > other.preference() / 10
    }

    /// Returns true if a task of this controller may interrupt one of a controller of priority
    /// `other`.
    pub fn interrupts(self, other: Self) -> bool {
        self.preference() / 100 > other.preference() / 100
    }

    /// Returns true if a task of this controller interrupts each task of a controller of priority
    /// `other`.
    pub fn interrupts_all(self, other: Self) -> bool {
        self.preference() / 1000 > other.preference() / 1000
    }
}

impl TryFrom<u32> for ControllerPriority {
    type Error = PriorityError;

    fn try_from(number: u32) -> Result<Self, PriorityError> {
        let is_boost_alone = (Self::BOOST..Self::BOOST + 1000).contains(&number);
        if number >= 2 * Self::BOOST || is_boost_alone {
            return Err(PriorityError(number.to_string()));
        }
        Ok(Self(number))
    }
}

impl From<ControllerPriority> for u32 {
    fn from(priority: ControllerPriority) -> Self {
        priority.0
    }
}

impl FromStr for ControllerPriority {
    type Err = PriorityError;

    fn from_str(text: &str) -> Result<Self, PriorityError> {
        let fault = || PriorityError(text.chars().take(20).collect());
        let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u32> = text.parse().ok().filter(|_| is_number);
        Self::try_from(number.ok_or_else(fault)?).map_err(|_| fault())
    }
}

impl fmt::Display for ControllerPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of a controller, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// The name.
    pub name: ControllerName,
    /// The protocol.
    pub protocol: String,
    /// The address for task requests, without a password.
    pub url: String,
    /// The priority.
    pub priority: ControllerPriority,
    /// The toolchain of its builds.
    pub toolchain: ToolchainName,
    /// The contact with it since the start of the agent.
    #[serde(flatten)]
    pub contact: Contact,
    /// The number of its tasks whose builds are recorded.
    pub tasks: u32,
    /// The builds whose lease is open: those that wait or run, and those whose result it does not
    /// have yet.
    pub open: Vec<OpenLease>,
    /// The coordinators of a farm, in the order of the settings; of another controller, none.
    #[serde(default)]
    pub coordinators: Vec<Coordinator>,
}

/// A coordinator of a farm, and the contact with it since the start of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// The address, without a password.
    pub url: String,
    /// True for the one that is asked next.
    pub in_use: bool,
    /// The time of its last answer.
    pub answered: Option<Timestamp>,
    /// The time of its first answer since it failed last; `None` if it has failed since.
    pub answering_since: Option<Timestamp>,
    /// The time of its last failure.
    pub failed: Option<Timestamp>,
    /// The last failure; empty after an answer.
    pub failure: String,
}

impl Coordinator {
    /// Notes an answer.
    pub fn note_answer(&mut self, now: Timestamp) {
        self.answered = Some(now);
        self.answering_since.get_or_insert(now);
        self.failure.clear();
    }

    /// Notes a failure.
    pub fn note_failure(&mut self, failure: &str, now: Timestamp) {
        self.answering_since = None;
        self.failed = Some(now);
        failure.clone_into(&mut self.failure);
    }
}

/// A request to give up the open leases of a controller that the settings do not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// Only says what would be given up.
    #[serde(default)]
    pub dry_run: bool,
}

/// The leases of a controller that were, or would be, given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The controller.
    pub controller: ControllerName,
    /// True if nothing was done.
    pub dry_run: bool,
    /// The builds of the leases, oldest first.
    pub builds: Vec<GivenUp>,
}

/// The build of a lease that is given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// The build.
    pub build: BuildId,
    /// The package of the task; may be empty.
    pub package: String,
    /// True if the build had ended, so that its result is given up; otherwise the build is ended.
    pub ended: bool,
}

/// A request to enrol this host in a farm.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The single-use token.
    pub token: String,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enrolment(***)")
    }
}

/// The contact with a controller since the start of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The time of its last answer; `None` if there was none.
    pub answered: Option<Timestamp>,
    /// The time of the first of the failures since then.
    #[serde(default)]
    pub failing_since: Option<Timestamp>,
    /// The failure of the last request; empty after a success.
    pub failure: String,
    /// The reason for which it is not asked now; empty while it is.
    pub not_asked: String,
    /// The sentences about machines whose content is not the one that a farm has published, so that it
    /// gives no builds for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlike: Vec<String>,
}

/// The open lease of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenLease {
    /// The build.
    pub build: BuildId,
    /// True if the build has ended: its result is still to be reported.
    pub ended: bool,
    /// The number of failed reports.
    pub failures: u32,
    /// The failure of the last report; may be empty.
    pub failure: String,
}

/// Returns an address without its user and password.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_answers_since_its_last_failure() {
        let second = |second| Timestamp::from_second(second).unwrap();
        let mut coordinator = Coordinator::default();
        coordinator.note_answer(second(1));
        coordinator.note_answer(second(2));
        assert_eq!(coordinator.answering_since, Some(second(1)));
        coordinator.note_failure("refused", second(3));
        let Coordinator {
            answered,
            answering_since,
            failed,
            ref failure,
            ..
        } = coordinator;
        assert_eq!((answered, answering_since), (Some(second(2)), None));
        assert_eq!((failed, failure.as_str()), (Some(second(3)), "refused"));
        coordinator.note_answer(second(4));
        assert_eq!(coordinator.answering_since, Some(second(4)));
        assert_eq!(
            (coordinator.failed, &*coordinator.failure),
            (Some(second(3)), "")
        );
    }

    fn priority(number: u32) -> ControllerPriority {
        ControllerPriority::try_from(number).unwrap()
    }

    #[test]
    fn each_level_includes_those_before_it() {
        // The priorities of two controllers, and what the first one may do: be asked first,
        // exclude, interrupt one, interrupt all.
        for (one, other, expected) in [
            (0, 0, [false; 4]),
            (1, 0, [true, false, false, false]),
            (10, 9, [true, true, false, false]),
            (10, 10, [false; 4]),
            (100, 99, [true, true, true, false]),
            (100, 190, [false; 4]),
            (1000, 999, [true; 4]),
            (1999, 1000, [true, true, true, false]),
            (11000, 999, [true; 4]),
            (11000, 1001, [false; 4]),
            (11000, 1000, [false; 4]),
        ] {
            let (first, second) = (priority(one), priority(other));
            let found = [
                first.preference() > second.preference(),
                first.excludes(second),
                first.interrupts(second),
                first.interrupts_all(second),
            ];
            assert_eq!(found, expected, "{one} and {other}");
            assert_eq!(first.boosts(), one == 11000);
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            ("https://a:b@x.org/?t@y", "https://x.org/?t@y"),
            ("http://x.org?q=a@b", "http://x.org?q=a@b"),
            ("http://x.org:80", "http://x.org:80"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn only_digits_that_make_sense_are_a_priority() {
        for text in ["0", "1", "0100", "9999", "11000", "19999", "01000"] {
            assert!(text.parse::<ControllerPriority>().is_ok(), "{text}");
        }
        for text in [
            "", "-1", "+1", "1 ", "10000", "10999", "20000", "000000", "x",
        ] {
            assert!(text.parse::<ControllerPriority>().is_err(), "{text}");
        }
        assert_eq!(
            serde_json::from_str::<ControllerPriority>("11000").unwrap(),
            priority(11000)
        );
        serde_json::from_str::<ControllerPriority>("10000").unwrap_err();
    }
}
