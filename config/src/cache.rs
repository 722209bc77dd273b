//! Caches between builds: the names of their entries, the variables that a build gets, and the
//! messages of the API.
//!
//! A guest reaches the cache of its machine and toolchain over HTTP at [`PORT`] of its gateway:
//! `GET` and `HEAD` of an entry, and `PUT` if its builds may fill the cache. The task says which; see
//! [`CacheMode`].

pub(crate) mod mode;
mod path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::builds::Submitter;
use crate::names::{BuildId, CacheName};

pub use mode::{CacheMode, CacheModeError, CacheUse};
pub use path::{Area, CachePath, CachePathError};

/// The port of the cache at the gateway.
pub const PORT: u16 = 8080;
/// The variable that tells a build the address of its cache, such as
/// `http://169.254.111.222:8080`. Not set without one.
pub const VARIABLE: &str = "BUILDHOST_CACHE";
/// The variable that tells a build its [`CacheMode`].
pub const MODE_VARIABLE: &str = "BUILDHOST_CACHE_MODE";
/// The default number of entries in a list of the API.
pub const ENTRIES_DEFAULT: usize = 1000;
/// The largest number of entries in a list of the API.
pub const ENTRIES_MAX: usize = 10_000;

/// A cache of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// The name.
    pub name: CacheName,
    /// The patterns of the machines whose builds use it.
    pub machines: Vec<String>,
    /// The patterns of the toolchains of these builds.
    pub toolchains: Vec<String>,
    /// The submitters whose builds fill it.
    pub writers: Vec<Submitter>,
    /// The size, in bytes.
    pub bytes: u64,
    /// The size up to which entries are kept, in bytes.
    pub bytes_max: u64,
    /// The number of entries.
    pub entries: u64,
}

/// An entry of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntry {
    /// The path.
    pub path: CachePath,
    /// The size, in bytes.
    pub bytes: u64,
    /// The BLAKE3 hash of the content.
    pub blake3: String,
    /// The build that put it.
    pub build: BuildId,
    /// The time at which it was published.
    pub published: Timestamp,
    /// The time of its last use, to within some minutes.
    pub used: Timestamp,
}

/// A cache with some of its entries, in the order of their paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheContent {
    /// The cache.
    pub cache: Cache,
    /// The entries.
    pub entries: Vec<CacheEntry>,
    /// Set if more entries follow: the last path of this list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<CachePath>,
}

/// The entries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryQuery {
    /// The beginning of their paths.
    #[serde(default)]
    pub prefix: String,
    /// The path after which the list begins.
    #[serde(default)]
    pub after: String,
    /// The largest number; [`ENTRIES_DEFAULT`] if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// The entries to delete: those that have all that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryFilter {
    /// The beginning of their paths.
    #[serde(default)]
    pub prefix: String,
    /// The build that put them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// Counts them and deletes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A request to prune a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRequest {
    /// The size to prune it to, in bytes; that of the settings if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
    /// Counts the entries and deletes nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// The entries that were deleted, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Their number.
    pub entries: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}
