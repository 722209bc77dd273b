//! The deletion of entries: of those that were not used for the longest time, of those that an
//! administrator names, and of contents that an interrupted change has left.

use std::fs;
use std::io;
use std::sync::atomic::Ordering;

use config::cache::{CachePath, Deleted, EntryFilter, PruneRequest};
use tracing::info;

use super::{CONTENTS, Cache};
use crate::content::ContentHash;
use crate::{CacheError, failed, rules};

impl Cache {
    /// Deletes the entries that were not used for the longest time, until the others have the size
    /// that is wanted.
    ///
    /// # Errors
    /// The index or a content cannot be changed.
    pub fn prune(&self, request: PruneRequest) -> Result<Deleted, CacheError> {
        let bytes_max = request.bytes_max.unwrap_or(self.rules.bytes_max);
        let _changes = self.changes.lock();
        self.prune_to(bytes_max, request.dry_run)
    }

    /// Deletes the entries that an administrator names.
    ///
    /// # Errors
    /// The index or a content cannot be changed.
    pub fn delete(&self, filter: &EntryFilter) -> Result<Deleted, CacheError> {
        let _changes = self.changes.lock();
        let entries = self.index.lock().select(&filter.prefix, filter.build)?;
        self.delete_entries(entries, filter.dry_run)
    }

    /// Records uses, prunes a cache above its size, and deletes what an interrupted change has left.
    ///
    /// # Errors
    /// The index or a content cannot be read or changed.
    pub fn housekeep(&self) -> Result<(), CacheError> {
        let _changes = self.changes.lock();
        let deleted = self.prune_to(self.rules.bytes_max, false)?;
        if deleted.entries > 0 {
            let Deleted { entries, bytes } = deleted;
            info!(cache = %self.rules.name, entries, bytes, "pruned a cache");
        }
        if !self.is_swept() {
            self.sweep()?;
            self.is_swept.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    pub(super) fn prune_to(&self, bytes_max: u64, dry_run: bool) -> Result<Deleted, CacheError> {
        self.note_uses()?;
        let bytes = self.measure()?.bytes;
        if bytes <= bytes_max {
            return Ok(Deleted::default());
        }
        let mut seen = 0;
        let oldest = self.index.lock().by_use(|size| {
            let wanted = bytes.saturating_sub(seen) > bytes_max;
            seen += size;
            wanted
        })?;
        let entries = rules::evicted(oldest, bytes, bytes_max);
        self.delete_entries(entries, dry_run)
    }

    fn delete_entries(
        &self,
        entries: Vec<(CachePath, u64)>,
        dry_run: bool,
    ) -> Result<Deleted, CacheError> {
        let deleted = Deleted {
            entries: entries.len() as u64,
            bytes: entries.iter().map(|(_, bytes)| bytes).sum(),
        };
        if dry_run || entries.is_empty() {
            return Ok(deleted);
        }
        let paths: Vec<_> = entries.into_iter().map(|(path, _)| path).collect();
        let was_swept = self.is_swept.swap(false, Ordering::SeqCst);
        let unused = self.index.lock().remove(&paths)?;
        self.delete_contents(&unused)?;
        self.is_swept.store(was_swept, Ordering::SeqCst);
        self.measure()?;
        self.metrics
            .caches
            .deleted(&self.rules.name, deleted.entries);
        Ok(deleted)
    }

    /// Deletes contents that no entry has.
    pub(super) fn delete_contents(&self, hashes: &[ContentHash]) -> Result<(), CacheError> {
        for hash in hashes {
            let path = self.path_of(*hash);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path)(error));
                }
                _ => {}
            }
            self.verified.lock().remove(hash);
        }
        Ok(())
    }

    /// Deletes all contents that no entry has. What has another name than a content stays.
    fn sweep(&self) -> Result<(), CacheError> {
        let known = self.index.lock().hashes()?;
        let contents = self.directory.join(CONTENTS);
        let name = |path: &std::path::Path| Some(path.file_name()?.to_str()?.to_owned());
        let mut unused = Vec::new();
        for directory in sys::file::entries(&contents).map_err(failed(&contents))? {
            let first = name(&directory).filter(|_| directory.is_dir());
            let Some(first) = first else {
                continue;
            };
            for file in sys::file::entries(&directory).map_err(failed(&directory))? {
                let rest = name(&file);
                let hash = rest.and_then(|rest| ContentHash::of_path(&first, &rest));
                unused.extend(hash.filter(|hash| !known.contains(hash)));
            }
        }
        if !unused.is_empty() {
            let contents = unused.len();
            info!(cache = %self.rules.name, contents, "deleting what an interrupted change left");
        }
        self.delete_contents(&unused)
    }
}
