//! The publication of what a build has put. Its contents are on the disk before the index names
//! them, and the index names all or none. A publication that a crash has interrupted is repeated
//! from the journal, or leaves contents that no entry has, which [`Cache::housekeep`] deletes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::atomic::Ordering;

use config::cache::CachePath;
use jiff::Timestamp;
use parking_lot::MutexGuard;
use rustix::fs::syncfs;

use super::{CONTENTS, Cache};
use crate::content::ContentHash;
use crate::journal::Content;
use crate::rules::{self, Put};
use crate::staging::Staging;
use crate::{CacheError, failed};

/// The result of a publication.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// The number of entries that are new or have a new content.
    pub entries: usize,
    /// The number of entries whose names have another content, which stays.
    pub conflicts: usize,
}

/// A step of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Moves a content from the staging directory.
    Move(Content),
    /// Commits the moved contents to the disk.
    Sync,
    /// Adds the entries to the index.
    Commit(Vec<(CachePath, Content)>),
    /// Deletes the contents of replaced entries that no other entry has.
    DeleteUnused(Vec<ContentHash>),
}

/// The steps of a publication, and its result; pure.
pub(super) fn plan(
    staged: BTreeMap<CachePath, Content>,
    known: &BTreeMap<CachePath, ContentHash>,
) -> (Vec<Step>, Published) {
    let (mut entries, mut replaced) = (Vec::new(), BTreeSet::new());
    let mut published = Published::default();
    for (path, content) in staged {
        let known = known.get(&path).copied();
        match rules::put(path.area(), known, content.hash) {
            Put::Store => {
                replaced.extend(known);
                entries.push((path, content));
            }
            Put::Same => {}
            Put::Conflict => published.conflicts += 1,
        }
    }
    published.entries = entries.len();
    if entries.is_empty() {
        return (Vec::new(), published);
    }
    let contents: BTreeMap<_, _> = entries.iter().map(|(_, it)| (it.hash, *it)).collect();
    let mut steps: Vec<_> = contents.into_values().map(Step::Move).collect();
    steps.extend([
        Step::Sync,
        Step::Commit(entries),
        Step::DeleteUnused(replaced.into_iter().collect()),
    ]);
    (steps, published)
}

impl Cache {
    /// Publishes the entries of a build, and prunes the cache.
    pub(super) fn publish(
        &self,
        staging: &Staging,
        now: Timestamp,
    ) -> Result<Published, CacheError> {
        let (_changes, steps, published) = self.plan_publication(staging)?;
        if steps.is_empty() {
            return Ok(published);
        }
        // A failure leaves contents without entries.
        let was_swept = self.is_swept.swap(false, Ordering::SeqCst);
        for step in &steps {
            self.run(staging, step, now)?;
        }
        self.is_swept.store(was_swept, Ordering::SeqCst);
        self.metrics
            .caches
            .published(&self.rules.name, published.entries as u64);
        self.prune_to(self.rules.bytes_max, false)?;
        Ok(published)
    }

    /// Returns the steps of a publication, with the lock under which they are valid.
    pub(super) fn plan_publication(
        &self,
        staging: &Staging,
    ) -> Result<(MutexGuard<'_, ()>, Vec<Step>, Published), CacheError> {
        let staged = staging.close();
        let changes = self.changes.lock();
        let mut known = BTreeMap::new();
        for path in staged.keys() {
            if let Some(content) = self.index.lock().find(path)? {
                known.insert(path.clone(), content.hash);
            }
        }
        let (steps, published) = plan(staged, &known);
        Ok((changes, steps, published))
    }

    /// Runs one step. Done twice, it gives the same.
    pub(super) fn run(
        &self,
        staging: &Staging,
        step: &Step,
        now: Timestamp,
    ) -> Result<(), CacheError> {
        match step {
            Step::Move(content) => self.move_content(staging, *content),
            Step::Sync => {
                let contents = self.directory.join(CONTENTS);
                let sync = || Ok(syncfs(sys::trusted::open(&contents)?)?);
                sync().map_err(failed(&contents))
            }
            Step::Commit(entries) => self.index.lock().put(entries, staging.build(), now),
            Step::DeleteUnused(replaced) => {
                let unused = self.index.lock().unused(replaced.iter().copied())?;
                self.delete_contents(&unused)
            }
        }
    }

    fn move_content(&self, staging: &Staging, content: Content) -> Result<(), CacheError> {
        let to = self.path_of(content.hash);
        let moved = || {
            if let Some(directory) = to.parent() {
                sys::file::private_directory(directory)?;
            }
            match fs::rename(staging.path_of(content), &to) {
                // An interrupted publication has moved it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && to.exists() => Ok(()),
                moved => moved,
            }
        };
        moved().map_err(failed(&to))
    }
}
