//! What an agent tells of its queue: what runs, what waits for what, how much room
//! there is, and whether the host is drained.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::{Priority, State, Submitter, Target};
use crate::names::{BuildId, MachineName, ToolchainName};

/// Asks that no guest starts any more; what runs ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Why, for those who wait; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// That no guest starts any more, until somebody ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Since when.
    pub since: Timestamp,
    /// Why; may be empty.
    pub reason: String,
}

impl Drained {
    /// What is said to those who wait.
    pub fn message(&self) -> String {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%SZ");
        match self.reason.as_str() {
            "" => format!("the host is drained since {since}"),
            reason => format!("the host is drained since {since} ({reason})"),
        }
    }
}

/// Of something that guests take, how much there is and how much of it is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// How much is taken.
    pub taken: u64,
    /// How much there is; no limit of its own if `None`.
    pub total: Option<u64>,
}

/// A guest that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The build that it does; it is a bootstrap if `None`.
    pub build: Option<BuildId>,
    /// Whether it runs in a copy of what is held of the build, for a person.
    #[serde(default, rename = "attached")]
    pub is_debug_copy: bool,
    /// Who asked for it.
    pub submitter: Option<Submitter>,
    /// What is built.
    pub target: Option<Target>,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// How far the build has come.
    pub state: Option<State>,
    /// Since when it runs.
    pub since: Option<Timestamp>,
    /// Its processors.
    pub cpus: u64,
    /// Its memory.
    pub memory_mib: u64,
}

/// A build that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingBuild {
    /// The build.
    pub build: BuildId,
    /// Who asked for it.
    pub submitter: Submitter,
    /// Its place among those that wait.
    pub priority: Priority,
    /// What is built.
    pub target: Target,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// Since when.
    pub since: Timestamp,
    /// Before this it is not tried again.
    pub not_before: Option<Timestamp>,
    /// What it waits for: goes on after `build 12 waits`.
    pub message: String,
}

/// The queue of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The host's name.
    pub name: String,
    /// When this was so.
    pub at: Timestamp,
    /// Whether it is drained.
    pub drained: Option<Drained>,
    /// Guests.
    pub guests: Load,
    /// Processors, as often as they may be given away.
    pub cpus: Load,
    /// Memory, in MiB.
    pub memory_mib: Load,
    /// What runs.
    pub running: Vec<Guest>,
    /// What waits, in the order of its turns; what cannot start yet comes last.
    pub waiting: Vec<WaitingBuild>,
}
