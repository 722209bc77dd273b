//! One cache: its index, its contents, and the builds that fill it.

mod prune;
mod publish;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use config::BuildId;
use config::builds::Build;
use config::cache::{
    CacheContent, CacheEntry, CachePath, ENTRIES_DEFAULT, ENTRIES_MAX, EntryQuery,
};
use config::settings::CacheRules;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustix::fs::statvfs;
use telemetry::metrics::{CacheResult, Metrics};
use tracing::warn;

use crate::content::{ContentHash, hash_file};
use crate::index::{Index, Totals};
use crate::journal::Content;
use crate::staging::Staging;
use crate::{CacheError, failed};

pub use publish::Published;

/// The file with the index, in the directory of a cache.
const INDEX: &str = "index.sqlite3";
/// The directory with the contents.
const CONTENTS: &str = "contents";
/// The directory with the staging directories of builds.
const STAGING: &str = "staging";
/// The number of uses that wait to be recorded. With more, they are recorded at once.
const USES_MAX: usize = 10_000;

/// A cache. Its functions block.
#[derive(Debug)]
pub struct Cache {
    rules: CacheRules,
    directory: PathBuf,
    /// The free space that stays on the disk.
    reserve_bytes: u64,
    /// Held by a change of several steps. The index is locked for each step only, so that reads need
    /// not wait for the disk.
    changes: Mutex<()>,
    index: Mutex<Index>,
    /// The contents that were read since the start of the agent and had their hashes.
    verified: Mutex<HashSet<ContentHash>>,
    /// The last uses of entries that the index does not know yet.
    uses: Mutex<HashMap<CachePath, Timestamp>>,
    stagings: Mutex<HashMap<BuildId, Arc<Staging>>>,
    /// Set if no content can be left of an interrupted change.
    is_swept: AtomicBool,
    metrics: Arc<Metrics>,
}

/// An entry that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// The file with its content.
    pub(crate) file: PathBuf,
}

impl Cache {
    /// Opens the cache of these rules, in a directory that need not exist.
    ///
    /// # Errors
    /// The directory cannot be made, or the index cannot be used.
    pub(crate) fn open(
        directory: PathBuf,
        rules: CacheRules,
        reserve_bytes: u64,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, CacheError> {
        for directory in [
            &directory,
            &directory.join(CONTENTS),
            &directory.join(STAGING),
        ] {
            sys::file::private_directory(directory).map_err(failed(directory))?;
        }
        let index = Index::open(&directory.join(INDEX))?;
        let cache = Self {
            rules,
            reserve_bytes,
            changes: Mutex::default(),
            index: Mutex::new(index),
            verified: Mutex::default(),
            uses: Mutex::default(),
            stagings: Mutex::default(),
            is_swept: AtomicBool::new(false),
            metrics: Arc::clone(metrics),
            directory,
        };
        cache.measure()?;
        Ok(cache)
    }

    /// Returns the rules.
    pub fn rules(&self) -> &CacheRules {
        &self.rules
    }

    /// Returns true if earlier builds have left something. A cache whose index cannot be read has nothing.
    pub fn has_entries(&self) -> bool {
        self.index.lock().has_entries().unwrap_or(false)
    }

    /// Returns the cache as the API shows it.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn describe(&self) -> Result<config::cache::Cache, CacheError> {
        let totals = self.index.lock().totals()?;
        let CacheRules {
            name,
            machines,
            toolchains,
            writers,
            bytes_max,
        } = self.rules.clone();
        Ok(config::cache::Cache {
            name,
            machines,
            toolchains,
            writers,
            bytes: totals.bytes,
            bytes_max,
            entries: totals.entries,
        })
    }

    /// Returns the cache with some of its entries.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn list(&self, query: &EntryQuery) -> Result<CacheContent, CacheError> {
        let limit = query.limit.unwrap_or(ENTRIES_DEFAULT).clamp(1, ENTRIES_MAX);
        self.note_uses()?;
        let index = self.index.lock();
        let mut entries: Vec<CacheEntry> = index.list(&query.prefix, &query.after, limit + 1)?;
        drop(index);
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let last = entries.last().filter(|_| has_more);
        Ok(CacheContent {
            next: last.map(|entry| entry.path.clone()),
            cache: self.describe()?,
            entries,
        })
    }

    /// Returns the entry at a path and records its use. The first time that a content is to be
    /// `read`, its hash is checked; an entry with a wrong one is deleted.
    pub(crate) fn find(
        &self,
        path: &CachePath,
        read: bool,
        now: Timestamp,
    ) -> Result<Option<Found>, CacheError> {
        let Some(content) = self.index.lock().find(path)? else {
            return Ok(None);
        };
        let file = self.path_of(content.hash);
        match self.check(&file, content, read) {
            Ok(true) => {
                self.note_use(path, now)?;
                Ok(Some(Found { file }))
            }
            Ok(false) => {
                self.discard(&file, content)?;
                Ok(None)
            }
            Err(error) => Err(failed(&file)(error)),
        }
    }

    /// Returns the hash of an entry.
    pub(crate) fn hash_of(&self, path: &CachePath) -> Result<Option<ContentHash>, CacheError> {
        let found = self.index.lock().find(path)?;
        Ok(found.map(|content| content.hash))
    }

    /// Returns true if the file of a content has its size and, if it is to be `read`, its hash.
    fn check(&self, file: &Path, content: Content, read: bool) -> io::Result<bool> {
        let metadata = match fs::symlink_metadata(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            metadata => metadata?,
        };
        if !metadata.is_file() || metadata.len() != content.bytes {
            return Ok(false);
        }
        if !read || self.verified.lock().contains(&content.hash) {
            return Ok(true);
        }
        let (hash, _) = hash_file(&sys::trusted::open(file)?)?;
        let is_good = hash == content.hash;
        if is_good {
            self.verified.lock().insert(hash);
        }
        Ok(is_good)
    }

    /// Deletes a content that is damaged or missing, with its entries. Does nothing if it was replaced
    /// meanwhile.
    fn discard(&self, file: &Path, content: Content) -> Result<(), CacheError> {
        let _changes = self.changes.lock();
        let hash = content.hash;
        let is_unused = !self.index.lock().unused([hash])?.is_empty();
        if is_unused || self.check(file, content, true).map_err(failed(file))? {
            return Ok(());
        }
        self.index.lock().remove_content(hash)?;
        self.delete_contents(&[hash])?;
        self.measure()?;
        warn!(cache = %self.rules.name, content = %hash, "deleted a damaged content of a cache");
        self.metrics
            .caches
            .request(&self.rules.name, CacheResult::Corrupt);
        Ok(())
    }

    /// Records the use of an entry, at the next occasion on the disk.
    fn note_use(&self, path: &CachePath, now: Timestamp) -> Result<(), CacheError> {
        let mut uses = self.uses.lock();
        uses.insert(path.clone(), now);
        if uses.len() < USES_MAX {
            return Ok(());
        }
        drop(uses);
        self.note_uses()
    }

    fn note_uses(&self) -> Result<(), CacheError> {
        let uses = std::mem::take(&mut *self.uses.lock());
        if uses.is_empty() {
            return Ok(());
        }
        self.index.lock().note_uses(&uses)
    }

    /// Returns the staging directory of a build: that of an earlier agent if the guest was adopted, or
    /// else an empty one.
    pub(crate) fn stage(&self, build: BuildId, is_adopted: bool) -> io::Result<Arc<Staging>> {
        let directory = self.directory.join(STAGING);
        let bytes_max = self.rules.bytes_max;
        let staging = Arc::new(if is_adopted {
            Staging::reopen(&directory, build, bytes_max)?
        } else {
            Staging::fresh(&directory, build, bytes_max)?
        });
        self.stagings.lock().insert(build, Arc::clone(&staging));
        Ok(staging)
    }

    /// Publishes what a build has put if it was `good` and may fill the cache; otherwise drops it. Done
    /// twice, it gives the same. Returns the result for a build that was good.
    ///
    /// # Errors
    /// The entries cannot be published; then none is.
    pub fn settle(&self, build: &Build, good: bool) -> Result<Option<Published>, CacheError> {
        let known = self.stagings.lock().remove(&build.id);
        let staging = if let Some(staging) = known {
            staging
        } else {
            let directory = self.directory.join(STAGING);
            let found = Staging::reopen(&directory, build.id, self.rules.bytes_max);
            Arc::new(found.map_err(failed(&directory))?)
        };
        let published = if good && crate::rules::rights(&self.rules, build).is_ok() {
            Some(self.publish(&staging, Timestamp::now())).transpose()
        } else {
            staging.close();
            Ok(None)
        };
        staging.remove().map_err(failed(&self.directory))?;
        published
    }

    /// Removes the staging directories of builds that have no guest: those not in `kept`. Continues
    /// after a failure and logs it.
    pub(crate) fn drop_orphans(&self, kept: &BTreeSet<BuildId>) {
        for path in sys::file::entries(&self.directory.join(STAGING)).unwrap_or_default() {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some(Ok(build)) = name.map(str::parse) else {
                continue;
            };
            if kept.contains(&build) {
                continue;
            }
            if let Err(error) = fs::remove_dir_all(&path) {
                warn!(%error, path = %path.display(), "cannot remove the staging directory of a build");
            }
        }
    }

    /// Returns true if so many bytes can be stored, and the reserve of the disk stays free.
    pub(crate) fn has_space_for(&self, bytes: u64) -> io::Result<bool> {
        let disk = statvfs(&self.directory)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Ok(free >= self.reserve_bytes.saturating_add(bytes))
    }

    /// Returns the metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn path_of(&self, hash: ContentHash) -> PathBuf {
        hash.path_below(&self.directory.join(CONTENTS))
    }

    /// Shows the size in the metrics.
    fn measure(&self) -> Result<Totals, CacheError> {
        let totals = self.index.lock().totals()?;
        let Totals { entries, bytes } = totals;
        self.metrics.caches.size(&self.rules.name, entries, bytes);
        Ok(totals)
    }

    fn is_swept(&self) -> bool {
        self.is_swept.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
