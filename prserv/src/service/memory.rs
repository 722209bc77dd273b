//! What is remembered of the store: whole packages, in a bounded number of rows.
//!
//! Everybody reads; only the clerk writes, and only what is on disk.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::policy::Facts;
use crate::rows::Rows;
use crate::store::NewRow;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const SHARDS: usize = 16;

/// Packages and their rows, spread over shards so that readers rarely meet.
#[derive(Debug)]
pub(crate) struct Memory {
    hasher: RandomState,
    shards: Vec<RwLock<Shard>>,
    rows_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    packages: HashMap<Package, Remembered>,
    rows: usize,
}

#[derive(Debug)]
struct Remembered {
    rows: Rows,
    /// Whether anybody has asked since the last trim.
    is_used: AtomicBool,
}

impl Memory {
    /// A memory for about so many rows.
    pub(crate) fn new(rows_max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            rows_max: rows_max / SHARDS,
        }
    }

    /// What is known of a tuple; `None` when its package is not remembered.
    pub(crate) fn facts(&self, package: &Package, checksum: &str) -> Option<Facts> {
        self.look(package, |rows| Facts {
            max: rows.max().cloned(),
            span: rows.span(checksum).cloned(),
        })
    }

    /// Looks at a package's rows; `None` when it is not remembered.
    pub(crate) fn look<T>(&self, package: &Package, look: impl FnOnce(&Rows) -> T) -> Option<T> {
        let shard = self.read(package);
        let Remembered { rows, is_used } = shard.packages.get(package)?;
        is_used.store(true, Ordering::Relaxed);
        Some(look(rows))
    }

    /// Whether a value is recorded for another checksum of the tuple's package.
    pub(crate) fn holds_for_another(&self, tuple: &Tuple, value: &Value) -> bool {
        let shard = self.read(&tuple.package);
        let remembered = shard.packages.get(&tuple.package);
        remembered.is_some_and(|package| package.rows.holds_for_another(&tuple.checksum, value))
    }

    /// Whether a package is remembered.
    pub(crate) fn has(&self, package: &Package) -> bool {
        self.read(package).packages.contains_key(package)
    }

    /// Remembers a package as the store has it.
    pub(crate) fn put(&self, package: &Package, rows: Rows) {
        let mut shard = self.write(package);
        shard.rows += weight(&rows);
        let remembered = Remembered {
            rows,
            is_used: AtomicBool::new(false),
        };
        if let Some(old) = shard.packages.insert(package.clone(), remembered) {
            shard.rows -= weight(&old.rows);
        }
    }

    /// Adds a committed row to its package, if that is remembered.
    pub(crate) fn add(&self, row: &NewRow) {
        let mut shard = self.write(&row.tuple.package);
        if let Some(Remembered { rows, .. }) = shard.packages.get_mut(&row.tuple.package) {
            let before = weight(rows);
            rows.add(&row.tuple.checksum, &row.value);
            let grown = weight(rows) - before;
            shard.rows += grown;
        }
    }

    /// Forgets packages that nobody has asked for lately, until the bound is kept.
    pub(crate) fn trim(&self) {
        for shard in &self.shards {
            let is_full = read(shard).rows > self.rows_max;
            if is_full {
                write(shard).trim(self.rows_max);
            }
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *write(shard) = Shard::default();
        }
    }

    fn read(&self, package: &Package) -> RwLockReadGuard<'_, Shard> {
        read(self.shard(package))
    }

    fn write(&self, package: &Package) -> RwLockWriteGuard<'_, Shard> {
        write(self.shard(package))
    }

    fn shard(&self, package: &Package) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(package);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}

impl Shard {
    /// Whoever was asked for since the last time is spared, so the bound may be passed for a
    /// while: better than to forget what the next batch needs again.
    fn trim(&mut self, rows_max: usize) {
        let excess = self.rows.saturating_sub(rows_max - rows_max / 8);
        let mut freed = 0;
        self.packages.retain(|_, Remembered { rows, is_used }| {
            let is_used = std::mem::take(is_used.get_mut());
            let keep = is_used || freed >= excess;
            if !keep {
                freed += weight(rows);
            }
            keep
        });
        self.rows -= freed;
    }
}

/// A package costs about as much as six of its rows.
fn weight(rows: &Rows) -> usize {
    rows.len() + 6
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

    #[test]
    fn more_packages_than_the_bound_are_forgotten_and_the_count_stays_right() {
        let memory = Memory::new(160);
        for number in 0..1000 {
            let package = Package::new(format!("p{number}"), "all");
            memory.put(&package, Rows::default());
            let tuple = Tuple {
                package,
                checksum: "c".into(),
            };
            memory.add(&NewRow {
                tuple: &tuple,
                value: Value::first(),
            });
            memory.trim();
        }
        for shard in &memory.shards {
            let shard = read(shard);
            let counted: usize = shard
                .packages
                .values()
                .map(|package| weight(&package.rows))
                .sum();
            assert_eq!(shard.rows, counted);
            assert!(counted <= 10);
        }
    }

    #[test]
    fn a_package_that_is_asked_for_outlives_those_that_are_not_however_big_it_is() {
        let memory = Memory::new(16 * 80);
        let hot = Package::new("hot", "all");
        memory.put(&hot, Rows::default());
        for number in 0..2000 {
            memory.put(&Package::new(format!("p{number}"), "all"), Rows::default());
            assert!(memory.facts(&hot, "").is_some(), "forgotten after {number}");
            let tuple = Tuple {
                package: hot.clone(),
                checksum: format!("c{number}"),
            };
            memory.add(&NewRow {
                tuple: &tuple,
                value: Value::from(number),
            });
            memory.trim();
        }
        memory.trim();
        memory.trim();
        assert!(!memory.has(&hot), "nobody has asked for it");
    }
}
