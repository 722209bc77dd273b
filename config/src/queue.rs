//! The messages about an agent's queue: running guests, waiting builds, capacity and
//! draining.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::{Priority, State, Submitter, Target};
use crate::load::Load;
use crate::names::{BuildId, MachineName, ResourceName, ToolchainName};

/// A request to drain the host: no guest starts, and running ones finish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The reason, for submitters who wait; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The state of a drained host, on which no guest starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The start of the drain.
    pub since: Timestamp,
    /// The reason; may be empty.
    pub reason: String,
}

impl Drained {
    /// Returns the message for submitters who wait.
    pub fn message(&self) -> String {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%SZ");
        match self.reason.as_str() {
            "" => format!("the host is drained since {since}"),
            reason => format!("the host is drained since {since} ({reason})"),
        }
    }
}

/// A running guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The build; the guest is a bootstrap if `None`.
    pub build: Option<BuildId>,
    /// True for a debug copy of the build's hold.
    #[serde(default, rename = "attached")]
    pub is_debug_copy: bool,
    /// The submitter.
    pub submitter: Option<Submitter>,
    /// The target.
    pub target: Option<Target>,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The state of the build.
    pub state: Option<State>,
    /// The start of the guest.
    pub since: Option<Timestamp>,
    /// The number of processors.
    pub cpus: u64,
    /// The memory in MiB.
    pub memory_mib: u64,
    /// Countable resources.
    #[serde(default)]
    pub resources: BTreeMap<ResourceName, u64>,
}

/// A waiting build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingBuild {
    /// The build.
    pub build: BuildId,
    /// The submitter.
    pub submitter: Submitter,
    /// The priority.
    pub priority: Priority,
    /// The target.
    pub target: Target,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The time of submission.
    pub since: Timestamp,
    /// The time before which the build is not retried.
    pub not_before: Option<Timestamp>,
    /// The wait reason; it continues the sentence `build 12 waits`.
    pub message: String,
    /// The forecast of its start, if it was asked for and the build starts as things are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
}

/// The forecast of a waiting build's start. It assumes that nothing else is submitted, and that
/// builds take as long as earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// The place of the build among the waiting ones in the order of their starts; 1 is next.
    pub place: usize,
    /// The estimated start, from the median of the durations of earlier builds.
    pub start: Timestamp,
    /// The estimated start if the builds before it take as long as the slowest tenth of earlier
    /// ones.
    pub start_late: Option<Timestamp>,
    /// A job before it whose duration is not known. The build does not start before
    /// [`Self::start`], and may start any time after it.
    pub unknown: Option<String>,
    /// The smallest number of earlier builds that the duration of a job before it comes from;
    /// `None` if it waits for no job.
    pub builds: Option<usize>,
    /// True if all these were builds of the same packages, false if some were only on the same
    /// machine.
    pub same_package: bool,
}

/// The queue of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The host's name.
    pub name: String,
    /// The time of this snapshot.
    pub at: Timestamp,
    /// The drain, if the host is drained.
    pub drained: Option<Drained>,
    /// The number of guests.
    pub guests: Load,
    /// Processors, overcommitment included.
    pub cpus: Load,
    /// Memory, in MiB.
    pub memory_mib: Load,
    /// Countable resources, with those of held guests.
    #[serde(default)]
    pub resources: BTreeMap<ResourceName, Load>,
    /// The running guests.
    pub running: Vec<Guest>,
    /// The waiting builds in the order of their starts; those that cannot start yet are
    /// last.
    pub waiting: Vec<WaitingBuild>,
}
