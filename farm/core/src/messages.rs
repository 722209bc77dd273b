//! The messages between hosts, clients and coordinators.

use std::collections::BTreeMap;
use std::fmt;

use config::builds::{Priority, Submitter};
use config::canary::{self, TrialVerdict};
use config::schedule::RunResult;
use config::task::{Digest, Outcome};
use config::{BuildId, MachineName, ScheduleName};
use serde::{Deserialize, Serialize};

use crate::schedules::{Added, Schedule};
use crate::transfers::TransferOrder;
use crate::trials::{TrialNumber, TrialOrder};
use crate::windows::{NewWindow, WindowId};
use crate::{HostId, Lease, Offer, Published, Requirements, Revision};

pub use crate::model::Subject;

/// The identity of one poll among all polls of a host, also of its earlier processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PollId {
    /// The random number of the agent's process.
    pub incarnation: u64,
    /// The number of the poll in that process.
    pub number: u64,
}

/// A host's sign of life, with its offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// The identity of the poll.
    pub id: PollId,
    /// The leases that the host knows.
    pub held: Vec<Lease>,
    /// The time for which the poll may be held without news.
    #[serde(default)]
    pub hold_ms: u64,
    /// The state of the host.
    pub offer: Offer,
}

/// A lease of a host with everything that it needs to run the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The lease.
    pub lease: Lease,
    /// The needs of the build.
    pub requirements: Requirements,
    /// True if the build was canceled: its guest is ended, and the result is `abort`.
    pub canceled: bool,
    /// The revision on trial that the build runs on; `None` for the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Revision>,
}

/// The answer to a poll: all leases of the host, old and new. A lease that the host has named and that
/// is absent here is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// The identity of the poll.
    pub id: PollId,
    /// The leases.
    pub leases: Vec<Grant>,
    /// The revisions that the farm has published, also of machines that the host does not have. It fetches
    /// those that its settings permit.
    pub published: BTreeMap<MachineName, Published>,
    /// The last trial of each machine, unless its revision was promoted: then it is published. A host that
    /// has the machine fetches a revision on trial and makes its images, and the current revision stays.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trials: BTreeMap<MachineName, TrialOrder>,
    /// The transfers that coordinators wait for. An answer may repeat them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<TransferOrder>,
}

/// The result of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The lease under which the build ran.
    pub lease: Lease,
    /// The outcome.
    pub outcome: Outcome,
    /// The sentence of the host about it. Older agents send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
}

/// A sentence about a result, of at most [`Self::BYTES_MAX`] bytes. It has no NUL, which PostgreSQL refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Message(String);

impl Message {
    /// The largest size, in bytes. The end of a longer text is left out.
    pub const BYTES_MAX: usize = 4096;

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Message {
    fn from(mut text: String) -> Self {
        text.truncate(text.floor_char_boundary(Self::BYTES_MAX));
        Self(text.replace('\0', "\u{fffd}"))
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A lease that a host gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The lease.
    #[serde(flatten)]
    pub lease: Lease,
    /// True if no guest has started, so that the build was not lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unused: bool,
}

/// The document with which a client requests a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBuild {
    /// The idempotency key, unique in the farm.
    pub key: String,
    /// The submitter, if another one than the client. Only administrators may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// The priority.
    #[serde(default)]
    pub priority: Priority,
    /// The needs of the build.
    pub requirements: Requirements,
    /// The names of what is built.
    #[serde(flatten)]
    pub subject: Subject,
}

/// A request for a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The idempotency key, unique in the farm.
    pub key: String,
    /// The submitter.
    pub submitter: Submitter,
    /// The priority.
    pub priority: Priority,
    /// The needs of the build.
    pub requirements: Requirements,
    /// The names of what is built.
    #[serde(flatten)]
    pub subject: Subject,
}

/// The publication of a revision, or its trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRevision {
    /// The revision.
    #[serde(flatten)]
    pub revision: Published,
    /// The terms of its trial; `None` to publish it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<canary::Terms>,
}

/// A request to a coordinator. A host is the one that the connection's key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A host tells what it has, and takes builds.
    Poll(HostId, Poll),
    /// A host reports a result.
    Report(HostId, Report),
    /// A host gives a lease back whose guest it has lost or does not start.
    Release(HostId, Release),
    /// A client requests a build.
    Submit(Submission),
    /// A client cancels a build.
    Cancel(BuildId),
    /// A client makes a revision of a machine current in the farm.
    Publish(MachineName, Published),
    /// A client puts a revision of a machine on trial in the farm.
    BeginTrial(MachineName, Published, canary::Terms),
    /// A client ends a trial, for a reason that names the client.
    EndTrial(MachineName, TrialNumber, TrialVerdict, String),
    /// A client stops or permits new builds on a host.
    Drain(HostId, bool),
    /// A client adds a maintenance window to a host.
    AddWindow(HostId, NewWindow),
    /// A client takes a maintenance window of a host away.
    RemoveWindow(HostId, WindowId),
    /// A client adds a schedule, which may replace another one if that is true.
    AddSchedule(Box<Schedule>, bool),
    /// A client deletes a schedule.
    RemoveSchedule(ScheduleName),
    /// A client pauses a schedule or ends its pause.
    PauseSchedule(ScheduleName, bool),
    /// A client runs a schedule at once, with an idempotency key.
    RunSchedule(ScheduleName, String),
}

/// The answer of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The leases of the host.
    Leases(PollAnswer),
    /// The farm has the result.
    Recorded(Lease),
    /// The farm has the lease back.
    Released(Lease),
    /// The lease belongs to others by now, or the build has a result. The host drops what it has.
    Stale(Lease),
    /// The build is in the queue.
    Submitted(BuildId),
    /// No coordinator that is alive has these sources of the build.
    NoSource(Vec<Digest>),
    /// A source could not be copied to another coordinator, for this reason. The request is repeated later.
    NotCopied(Digest, String),
    /// The build ends as `abort`, or has ended so already.
    Canceled(BuildId),
    /// The build already has another result.
    Finished(BuildId, Outcome),
    /// The revision that is current now: that of the request or a newer one.
    Published(MachineName, Revision),
    /// The revision is published with other content, which is this one.
    OtherContent(MachineName, Published),
    /// The revision is on trial.
    TrialBegun(TrialNumber),
    /// The trial has ended before, or with another verdict.
    TrialOver(MachineName),
    /// The window was added.
    Window(WindowId),
    /// The change is made.
    Done,
    /// The schedule was added or not.
    ScheduleAdded(Added),
    /// The schedule has run, with this build.
    Ran(BuildId, RunResult),
    /// The request names something that the farm does not have.
    NotFound(String),
    /// The request may or may not have had its effect. It is repeated later.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fits_into_its_row() {
        let long = Message::from("a".repeat(Message::BYTES_MAX - 1) + "ä");
        assert_eq!(long.as_str().len(), Message::BYTES_MAX - 1);
        assert_eq!(Message::from("a\0b".to_owned()).as_str(), "a\u{fffd}b");
    }
}
