//! The values of the farm: builds and their requirements, hosts and their offers, leases, times.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::builds::Target;
use config::task::{Digest, Source};
use config::{BuildId, MachineName, ProjectName, ResourceName, ToolchainName};
use serde::{Deserialize, Serialize};

/// The number of a host in its farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub u64);

/// The fencing token of a lease: each claim of a build raises it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// The number of a machine's revision in the farm. It only rises.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// The right of one host to run one attempt of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The build.
    pub build: BuildId,
    /// The claim.
    pub epoch: Epoch,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.build, self.epoch.0)
    }
}

/// A time on the monotonic clock of one computer, in milliseconds since its start. Moments of two
/// computers are never compared.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Returns the time some milliseconds later.
    #[must_use]
    pub fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Returns the milliseconds since an earlier time.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time limits that coordinators and hosts of a farm agree on, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The time without a sign of life after which a host has lost its leases.
    pub lease_ms: u64,
    /// The time for which a coordinator holds a poll that finds no build. A host with leases asks for
    /// less.
    pub hold_ms: u64,
    /// The time after which a request without an answer is given up. That of a poll begins when it is
    /// no longer held.
    pub request_ms: u64,
    /// The pause between two polls of a host.
    pub poll_ms: u64,
    /// The number of lost hosts or guests after which a build is given up.
    pub attempts_max: u64,
}

impl Terms {
    /// Returns the terms of a farm whose leases last this long. A poll and its answer take less than the
    /// half of a lease that a host uses.
    pub fn of_lease(lease_ms: u64) -> Self {
        let usual = Self::default();
        Self {
            lease_ms,
            hold_ms: usual.hold_ms.min(lease_ms / 4),
            request_ms: usual.request_ms.min(lease_ms / 6),
            ..usual
        }
    }

    /// Returns the time until which a host may use a lease that a poll sent at `sent` confirmed: one
    /// half of it. The other half covers the end of the guest and clocks of different speeds.
    pub fn deadline(&self, sent: Moment) -> Moment {
        sent.after(self.lease_ms / 2)
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease_ms: 60_000,
            hold_ms: 20_000,
            request_ms: 10_000,
            poll_ms: 200,
            attempts_max: 5,
        }
    }
}

/// The work of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// The script that the guest runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub script: String,
    /// The name of what is built, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// The sources, which coordinators keep.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
}

impl Work {
    /// The largest script, in bytes.
    pub const SCRIPT_BYTES_MAX: usize = 64 * 1024;

    /// The most sources.
    pub const SOURCES_MAX: usize = 1_000;

    /// Returns the hashes of the sources, in their order and without repetitions.
    pub fn digests(&self) -> Vec<Digest> {
        let digests: BTreeSet<_> = self.sources.iter().map(|it| &it.sha256).collect();
        digests.into_iter().cloned().collect()
    }

    /// Returns true if there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The needs of a build, and its work.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requirements {
    /// The machine that it runs on.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The processors.
    pub cpus: u64,
    /// The memory, in MiB.
    pub memory_mib: u64,
    /// The countable resources.
    #[serde(default)]
    pub resources: BTreeMap<ResourceName, u64>,
    /// The work, which only the host of the build reads.
    #[serde(default, skip_serializing_if = "Work::is_empty")]
    pub work: Work,
}

/// The names under which people know a build. The farm does not decide by them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The names of what is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// The project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
}

/// Resources of a host for guests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capacity {
    /// The guest slots.
    pub guests: u64,
    /// The processors.
    pub cpus: u64,
    /// The memory, in MiB.
    pub memory_mib: u64,
    /// The countable resources.
    #[serde(default)]
    pub resources: BTreeMap<ResourceName, u64>,
}

/// A revision of a machine that all hosts of the farm use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The number.
    pub revision: Revision,
    /// The digest of its content manifest. Only rows of earlier versions have none; then any content
    /// counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
}

/// The relation of a host's revision to the published one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Builds may run on it.
    Current,
    /// It is older.
    Older,
    /// It is newer, and was not published.
    Newer,
    /// It has the number of the published one, and the host does not know its content.
    Unknown,
    /// It has the number of the published one, and other content.
    Other,
}

impl Published {
    /// Returns the relation of a revision with this content to the published one.
    pub fn standing(&self, revision: Revision, content: Option<&Digest>) -> Standing {
        match revision.cmp(&self.revision) {
            Ordering::Less => return Standing::Older,
            Ordering::Greater => return Standing::Newer,
            Ordering::Equal => {}
        }
        match (&self.content, content) {
            (Some(published), Some(own)) if own != published => Standing::Other,
            (Some(_), None) => Standing::Unknown,
            _ => Standing::Current,
        }
    }
}

/// A machine that a host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedMachine {
    /// The current revision on the host.
    pub revision: Revision,
    /// The digest of its content manifest; `None` if the host does not know its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The toolchains with a bootstrapped image.
    pub toolchains: BTreeSet<ToolchainName>,
    /// True if builds start from a checkpoint.
    pub frozen: bool,
    /// True if the caches of the machine have content.
    pub cached: bool,
    /// The revision on trial that the host has beside the current one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<OfferedTrial>,
}

impl OfferedMachine {
    /// Returns the revisions that the host can send, with their contents: the current one, and the one on trial.
    pub fn revisions(&self) -> impl Iterator<Item = (Revision, Option<&Digest>)> {
        let trial = self.trial.iter();
        let trial = trial.map(|it| (it.revision, it.content.as_ref()));
        std::iter::once((self.revision, self.content.as_ref())).chain(trial)
    }
}

/// A revision on trial that a host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OfferedTrial {
    /// The revision.
    pub revision: Revision,
    /// The digest of its content manifest; `None` if the host does not know its content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The toolchains with a bootstrapped image of it.
    pub toolchains: BTreeSet<ToolchainName>,
    /// The toolchains whose bootstrap has failed on it, and not on the current revision, with the reasons.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<ToolchainName, String>,
}

/// The state of a host, as it tells the farm: what it has, and what is free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Offer {
    /// The machines.
    pub machines: BTreeMap<MachineName, OfferedMachine>,
    /// The resources of the idle host.
    pub total: Capacity,
    /// The resources that are free now.
    pub free: Capacity,
    /// The reason for which no guest starts now, such as host pressure.
    pub halt: Option<String>,
    /// The version of the host's agent, for people; empty if the agent does not tell it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
}
