//! The messages about machines, their revisions and their images.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canary::Trial;
use crate::names::{MachineName, Revision, ToolchainName};

/// The maximum number of differences in one answer.
pub const DIFFERENCES_MAX: usize = 5000;

/// The note on a revision. Other hosts wrote it, too: it is only for people to read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The text; empty without one.
    #[serde(default)]
    pub text: String,
    /// The person who made the revision, as `user@host`.
    #[serde(default)]
    pub author: String,
    /// The source of the revision here, such as `push by user@host from 192.0.2.1`.
    #[serde(default)]
    pub source: String,
}

/// A machine in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSummary {
    /// The name.
    pub name: MachineName,
    /// The volume that the machine belongs to.
    pub volume: PathBuf,
    /// The state in a few words: `in service`.
    pub state: String,
    /// True if builds can run on it.
    pub in_service: bool,
    /// The current revision.
    pub current: Option<Revision>,
    /// The revision on trial.
    pub candidate: Option<Revision>,
    /// The number of revisions.
    pub revision_count: usize,
    /// The toolchains that its images have.
    pub toolchains: Vec<ToolchainName>,
    /// The number of guests that use it.
    pub guests: usize,
}

/// A machine with its revisions and images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The properties that lists have.
    #[serde(flatten)]
    pub summary: MachineSummary,
    /// The bytes of all revisions and images; shared ones count once. `None` while the space is not
    /// counted.
    pub bytes: Option<u64>,
    /// The revisions, oldest first.
    pub revisions: Vec<MachineRevision>,
    /// The images.
    pub images: Vec<MachineImage>,
}

/// A revision of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRevision {
    /// The number.
    pub revision: Revision,
    /// The state: `current`, `on trial`, `complete`, `arriving`, `incomplete` or `writable`.
    pub state: String,
    /// True if it is never pruned.
    pub pinned: bool,
    /// The time of its creation on this host.
    pub created: Option<Timestamp>,
    /// The UUID of its subvolume.
    pub uuid: String,
    /// The bytes of its files; `None` while the space is not counted.
    pub bytes: Option<u64>,
    /// The bytes that it shares with nothing else: a deletion frees them.
    pub bytes_exclusive: Option<u64>,
    /// The note on it.
    pub note: Option<Note>,
    /// Its trial.
    pub trial: Option<Trial>,
    /// The finished builds on it among the last of the machine.
    pub builds: BuildCounts,
}

impl MachineRevision {
    /// Returns true if builds can use the revision.
    pub fn is_complete(&self) -> bool {
        matches!(self.state.as_str(), "current" | "on trial" | "complete")
    }
}

/// The numbers of finished builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildCounts {
    /// Those that succeeded, also with warnings.
    pub succeeded: u32,
    /// Those that failed.
    pub failed: u32,
    /// Those that say nothing about the revision: cancelled, or the host failed.
    pub other: u32,
}

/// An image of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineImage {
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The state: `ready`, `outdated`, `for the trial` or `incomplete`.
    pub state: String,
    /// The revision that it was made of, if that exists.
    pub revision: Option<Revision>,
    /// The bytes of its files; `None` while the space is not counted.
    pub bytes: Option<u64>,
    /// The bytes that it shares with nothing else.
    pub bytes_exclusive: Option<u64>,
    /// The bytes of the memory in its checkpoint; `None` without one.
    pub checkpoint_bytes: Option<u64>,
}

/// The differences between two revisions of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionDiff {
    /// The machine.
    pub machine: MachineName,
    /// The older revision.
    pub older: Revision,
    /// The newer revision.
    pub newer: Revision,
    /// The number of added entries.
    pub added: usize,
    /// The number of missing entries.
    pub missing: usize,
    /// The number of changed entries.
    pub changed: usize,
    /// The differences by name; only the first [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
}

/// The difference of a file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The path, escaped as in content manifests.
    pub name: String,
    /// The kind.
    pub change: DifferenceKind,
    /// The size of the older file.
    pub bytes_before: Option<u64>,
    /// The size of the newer file.
    pub bytes_after: Option<u64>,
    /// The differences, as predicates of a sentence about the newer entry.
    pub differences: Vec<String>,
}

/// The kind of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Only the newer revision has the entry.
    Added,
    /// Only the older revision has the entry.
    Missing,
    /// Both have it, with differences.
    Changed,
}

/// The revisions that a request compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffQuery {
    /// The older revision.
    pub from: Revision,
    /// The newer revision.
    pub to: Revision,
}

/// A request to make a revision current.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision. Without one, a trial ends, or the revision before the current one becomes
    /// current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request about the pin of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinRequest {
    /// The revision.
    pub revision: Revision,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request to delete old revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevisionPruneRequest {
    /// The number of the newest revisions to keep.
    pub keep: usize,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request to decide a trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRequest {
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// The steps of a change of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReport {
    /// True if nothing was done.
    pub dry_run: bool,
    /// The steps that were, or would be, done; empty if nothing was to be done.
    pub steps: Vec<String>,
    /// The old revisions that are kept because something uses them, with the reasons.
    pub kept: Vec<String>,
}
