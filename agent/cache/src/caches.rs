//! The caches of a host.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::settings::CacheRules;
use config::{BuildId, CacheName, MachineName, ToolchainName};
use telemetry::metrics::Metrics;
use tracing::warn;

use crate::{Cache, CacheError};

/// The caches of a host, in the order of the settings. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    directory: PathBuf,
    caches: Arc<[Arc<Cache>]>,
}

impl Caches {
    /// Opens the caches of these rules, each in a directory below this one. `reserve_bytes` is the free
    /// space that stays on its disk.
    ///
    /// # Errors
    /// A cache cannot be opened.
    pub fn open(
        directory: &Path,
        rules: &[CacheRules],
        reserve_bytes: u64,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, CacheError> {
        let open = |rules: &CacheRules| {
            let directory = directory.join(&rules.name);
            Cache::open(directory, rules.clone(), reserve_bytes, metrics).map(Arc::new)
        };
        Ok(Self {
            directory: directory.to_owned(),
            caches: rules.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the cache of the builds of a machine with a toolchain.
    pub fn of(&self, machine: &MachineName, toolchain: &ToolchainName) -> Option<&Arc<Cache>> {
        self.iter()
            .find(|cache| cache.rules().serves(machine, toolchain))
    }

    /// Returns the cache with a name.
    pub fn get(&self, name: &CacheName) -> Option<&Arc<Cache>> {
        self.iter().find(|cache| cache.rules().name == *name)
    }

    /// Returns all caches.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cache>> {
        self.caches.iter()
    }

    /// Returns the directories of caches that the settings do not name any more. Blocks.
    pub fn unnamed(&self) -> Vec<PathBuf> {
        let mut paths = sys::file::entries(&self.directory).unwrap_or_default();
        paths.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.and_then(|name| name.parse::<CacheName>().ok());
            name.is_some_and(|name| self.get(&name).is_none())
        });
        paths
    }

    /// Removes what builds have put that have no guest any more: those not in `kept`. Blocks.
    pub fn drop_orphans(&self, kept: &BTreeSet<BuildId>) {
        for cache in self.iter() {
            cache.drop_orphans(kept);
        }
    }

    /// Prunes the caches, and deletes what interrupted changes have left. Continues after a failure and
    /// logs it. Blocks.
    pub fn housekeep(&self) {
        for cache in self.iter() {
            if let Err(error) = cache.housekeep() {
                let error = &error as &dyn Error;
                warn!(error, cache = %cache.rules().name, "cannot prune a cache");
            }
        }
    }
}
