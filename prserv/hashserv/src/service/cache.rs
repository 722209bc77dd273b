//! The cache of recorded unihashes, in a bounded number.
//!
//! It has only what is recorded, because a unihash never changes until it is deleted, while an
//! unknown task may be reported at any time, also to another server of the database. What is deleted
//! is removed after the commit. A reader inserts what it has read only if nothing was removed since
//! it began to read.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::row::{Mapping, TaskKey};

const SHARDS: usize = 32;

/// Unihashes by their tasks, and unihashes that exist, spread over shards to reduce lock contention.
#[derive(Debug)]
pub(super) struct Cache {
    hasher: RandomState,
    shards: Vec<RwLock<Shard>>,
    shard_max: usize,
    removals: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// The unihashes of each taskhash.
    tasks: HashMap<Box<str>, Unihashes>,
    unihashes: HashSet<Arc<str>>,
}

/// The unihash for each method. There are few methods.
type Unihashes = Vec<(Arc<str>, Arc<str>)>;

/// A state of the cache: the number of removals until now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Cache {
    /// Creates a cache for about so many hashes.
    pub(super) fn new(hashes_max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_max: hashes_max / SHARDS,
            removals: AtomicU64::new(0),
        }
    }

    /// Returns the unihash of a task if it is cached.
    pub(super) fn unihash(&self, method: &str, taskhash: &str) -> Option<Arc<str>> {
        let shard = read(self.shard(taskhash));
        let methods = shard.tasks.get(taskhash)?;
        let (_, unihash) = methods.iter().find(|(name, _)| **name == *method)?;
        Some(Arc::clone(unihash))
    }

    /// Returns true if a unihash is known to exist.
    pub(super) fn contains_unihash(&self, unihash: &str) -> bool {
        read(self.shard(unihash)).unihashes.contains(unihash)
    }

    /// Returns the generation to pass to an insertion of what is read from now on.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.removals.load(Ordering::SeqCst))
    }

    /// Inserts the recorded unihash of a task, unless something was removed since a generation.
    pub(super) fn insert(&self, task: &TaskKey, unihash: &Arc<str>, read_at: Generation) {
        self.insert_unihash(unihash, read_at);
        let mut shard = write(self.shard(&task.taskhash));
        if self.generation() != read_at {
            return;
        }
        if shard.tasks.len() >= self.shard_max {
            shard.tasks.clear();
        }
        let methods = shard
            .tasks
            .entry(task.taskhash.as_str().into())
            .or_default();
        methods.retain(|(method, _)| **method != *task.method);
        methods.push((Arc::from(task.method.as_str()), Arc::clone(unihash)));
    }

    /// Inserts a unihash that exists, unless something was removed since a generation.
    pub(super) fn insert_unihash(&self, unihash: &Arc<str>, read_at: Generation) {
        let mut shard = write(self.shard(unihash));
        if self.generation() != read_at {
            return;
        }
        if shard.unihashes.len() >= self.shard_max {
            shard.unihashes.clear();
        }
        shard.unihashes.insert(Arc::clone(unihash));
    }

    /// Removes what was deleted.
    pub(super) fn remove(&self, deleted: &[Mapping]) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        for Mapping { task, unihash } in deleted {
            let mut shard = write(self.shard(&task.taskhash));
            if let Some(methods) = shard.tasks.get_mut(task.taskhash.as_str()) {
                methods.retain(|(method, _)| **method != *task.method);
            }
            drop(shard);
            write(self.shard(unihash))
                .unihashes
                .remove(unihash.as_str());
        }
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            *write(shard) = Shard::default();
        }
    }

    fn shard(&self, key: impl Hash) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(method: &str, taskhash: &str) -> TaskKey {
        TaskKey {
            method: method.into(),
            taskhash: taskhash.into(),
        }
    }

    #[test]
    fn a_task_is_found_by_method_and_taskhash_until_it_is_removed() {
        let cache = Cache::new(1000);
        let now = cache.generation();
        cache.insert(&task("m", "t"), &"u".into(), now);
        cache.insert(&task("n", "t"), &"v".into(), now);
        assert_eq!(cache.unihash("m", "t").as_deref(), Some("u"));
        assert_eq!(cache.unihash("n", "t").as_deref(), Some("v"));
        assert_eq!(cache.unihash("o", "t"), None);
        assert!(cache.contains_unihash("u"));
        cache.remove(&[Mapping {
            task: task("m", "t"),
            unihash: "u".into(),
        }]);
        assert_eq!(cache.unihash("m", "t"), None);
        assert!(!cache.contains_unihash("u"));
        assert!(cache.contains_unihash("v"));
    }

    #[test]
    fn what_was_read_before_a_removal_is_not_inserted() {
        let cache = Cache::new(1000);
        let before = cache.generation();
        cache.remove(&[]);
        cache.insert(&task("m", "t"), &"u".into(), before);
        assert_eq!(cache.unihash("m", "t"), None);
        assert!(!cache.contains_unihash("u"));
        cache.insert(&task("m", "t"), &"u".into(), cache.generation());
        cache.clear();
        assert_eq!(cache.unihash("m", "t"), None);
    }

    #[test]
    fn the_number_of_hashes_is_bounded() {
        let cache = Cache::new(SHARDS * 4);
        for number in 0..1000 {
            let hash = number.to_string();
            cache.insert(&task("m", &hash), &hash.as_str().into(), cache.generation());
            assert!(cache.unihash("m", &hash).is_some());
        }
        for shard in &cache.shards {
            assert!(read(shard).tasks.len() <= 4);
            assert!(read(shard).unihashes.len() <= 4);
        }
    }
}
