//! Messages about package feeds.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{BuildId, FeedName, MachineName};

/// The state of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedStatus {
    /// The name.
    pub name: FeedName,
    /// The directory.
    pub path: String,
    /// True if the agent serves it.
    pub served: bool,
    /// The number of builds whose packages wait for their publication.
    pub waiting: u32,
    /// The failure of the last attempt to publish; empty after a success.
    #[serde(default)]
    pub failure: String,
    /// The fingerprints of the keys.
    pub keys: Vec<String>,
    /// The fault of a key, as a sentence; empty without one.
    #[serde(default)]
    pub key_fault: String,
    /// The repositories, by machine.
    pub repositories: Vec<FeedRepository>,
}

/// The state of the repository of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRepository {
    /// The machine.
    pub machine: MachineName,
    /// The path at the agent's HTTP address.
    pub location: String,
    /// The fault of the state, as a sentence; empty without one.
    #[serde(default)]
    pub fault: String,
    /// The number of the generation; 0 before the first one.
    pub generation: u64,
    /// The time at which that was published.
    #[serde(default)]
    pub published: Option<Timestamp>,
    /// The architectures of the packages.
    pub architectures: Vec<String>,
    /// The number of packages for apt, with all versions.
    pub debs: usize,
    /// The number of packages for opkg, with all versions.
    pub ipks: usize,
    /// The files that the indexes name and that are missing, the first ones of many.
    #[serde(default)]
    pub missing: Vec<String>,
    /// True if other keys than those of the settings have signed it.
    #[serde(default)]
    pub stale: bool,
    /// The packages that were refused, the last ones of many.
    #[serde(default)]
    pub refused: Vec<RefusedPackage>,
}

/// A package that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedPackage {
    /// The file.
    pub file: String,
    /// The build.
    #[serde(default)]
    pub build: Option<BuildId>,
    /// The reason.
    pub reason: String,
    /// The time.
    pub at: Timestamp,
}

/// The result of a rebuild of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedRebuilt {
    /// The machine.
    pub machine: MachineName,
    /// The number of the new generation.
    pub generation: u64,
    /// The packages that were lost, with the reasons.
    pub lost: Vec<String>,
}
