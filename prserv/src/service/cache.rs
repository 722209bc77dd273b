//! The cache of committed rows: whole packages, in a bounded number of rows.
//!
//! Every request reads it; only the writer changes it, and only after a commit.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::package_rows::PackageRows;
use crate::policy::TupleRecord;
use crate::store::NewRow;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const SHARDS: usize = 16;

/// Packages and their rows, spread over shards to reduce lock contention.
#[derive(Debug)]
pub(crate) struct Cache {
    hasher: RandomState,
    shards: Vec<RwLock<Shard>>,
    shard_rows_max: usize,
}

#[derive(Debug, Default)]
struct Shard {
    packages: HashMap<Package, CachedPackage>,
    weight: usize,
}

#[derive(Debug)]
struct CachedPackage {
    rows: PackageRows,
    /// Set by each read, cleared by each eviction (second chance).
    is_used: AtomicBool,
}

impl Cache {
    /// Creates a cache for about `rows_max` rows.
    pub(crate) fn new(rows_max: usize) -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_rows_max: rows_max / SHARDS,
        }
    }

    /// Returns the record of a tuple, or `None` if its package is not cached.
    pub(crate) fn record(&self, package: &Package, checksum: &str) -> Option<TupleRecord> {
        self.read(package, |rows| TupleRecord {
            max: rows.max().cloned(),
            range: rows.range(checksum).cloned(),
        })
    }

    /// Applies a function to the rows of a package. Returns `None` if it is not cached.
    pub(crate) fn read<T>(
        &self,
        package: &Package,
        read: impl FnOnce(&PackageRows) -> T,
    ) -> Option<T> {
        let shard = self.read_shard(package);
        let CachedPackage { rows, is_used } = shard.packages.get(package)?;
        is_used.store(true, Ordering::Relaxed);
        Some(read(rows))
    }

    /// Returns true if a value may be recorded for another checksum of the tuple's package.
    pub(crate) fn may_belong_to_another(&self, tuple: &Tuple, value: &Value) -> bool {
        self.read_shard(&tuple.package)
            .packages
            .get(&tuple.package)
            .is_some_and(|package| package.rows.may_belong_to_another(&tuple.checksum, value))
    }

    /// Returns true if a package is cached.
    pub(crate) fn contains(&self, package: &Package) -> bool {
        self.read_shard(package).packages.contains_key(package)
    }

    /// Inserts a package as the store has it.
    pub(crate) fn insert(&self, package: &Package, rows: PackageRows) {
        let mut shard = self.write_shard(package);
        shard.weight += weight(&rows);
        let cached = CachedPackage {
            rows,
            is_used: AtomicBool::new(false),
        };
        if let Some(replaced) = shard.packages.insert(package.clone(), cached) {
            shard.weight -= weight(&replaced.rows);
        }
    }

    /// Adds a committed row to its package if the package is cached.
    pub(crate) fn add(&self, row: &NewRow) {
        let mut shard = self.write_shard(&row.tuple.package);
        if let Some(CachedPackage { rows, .. }) = shard.packages.get_mut(&row.tuple.package) {
            let before = weight(rows);
            rows.add(&row.tuple.checksum, &row.value);
            let growth = weight(rows) - before;
            shard.weight += growth;
        }
    }

    /// Evicts packages that were not read recently from every shard above its bound.
    pub(crate) fn evict(&self) {
        for shard in &self.shards {
            let is_full = read(shard).weight > self.shard_rows_max;
            if is_full {
                write(shard).evict(self.shard_rows_max);
            }
        }
    }

    /// Removes everything.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *write(shard) = Shard::default();
        }
    }

    fn read_shard(&self, package: &Package) -> RwLockReadGuard<'_, Shard> {
        read(self.shard(package))
    }

    fn write_shard(&self, package: &Package) -> RwLockWriteGuard<'_, Shard> {
        write(self.shard(package))
    }

    fn shard(&self, package: &Package) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(package);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()]
    }
}

impl Shard {
    /// Evicts packages that were not read since the last eviction. If too few qualify, the shard
    /// stays above its bound for now, because the next batch likely needs the others again.
    fn evict(&mut self, rows_max: usize) {
        let excess = self.weight.saturating_sub(rows_max - rows_max / 8);
        let mut freed = 0;
        self.packages.retain(|_, CachedPackage { rows, is_used }| {
            let is_used = std::mem::take(is_used.get_mut());
            let keep = is_used || freed >= excess;
            if !keep {
                freed += weight(rows);
            }
            keep
        });
        self.weight -= freed;
    }
}

/// Returns the cache use of a package in rows. The package itself uses about as much as six.
fn weight(rows: &PackageRows) -> usize {
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
    fn packages_beyond_the_bound_are_evicted_and_the_weight_stays_right() {
        let cache = Cache::new(160);
        for number in 0..1000 {
            let package = Package::new(format!("p{number}"), "all");
            cache.insert(&package, PackageRows::default());
            let tuple = Tuple {
                package,
                checksum: "c".into(),
            };
            cache.add(&NewRow {
                tuple: &tuple,
                value: Value::first(),
            });
            cache.evict();
        }
        for shard in &cache.shards {
            let shard = read(shard);
            let total: usize = shard
                .packages
                .values()
                .map(|package| weight(&package.rows))
                .sum();
            assert_eq!(shard.weight, total);
            assert!(total <= 10);
        }
    }

    #[test]
    fn a_package_in_use_is_never_evicted_however_big_it_is() {
        let cache = Cache::new(16 * 80);
        let hot = Package::new("hot", "all");
        cache.insert(&hot, PackageRows::default());
        for number in 0..2000 {
            cache.insert(
                &Package::new(format!("p{number}"), "all"),
                PackageRows::default(),
            );
            assert!(cache.record(&hot, "").is_some(), "evicted after {number}");
            let tuple = Tuple {
                package: hot.clone(),
                checksum: format!("c{number}"),
            };
            cache.add(&NewRow {
                tuple: &tuple,
                value: Value::from(number),
            });
            cache.evict();
        }
        cache.evict();
        cache.evict();
        assert!(
            !cache.contains(&hot),
            "it was not read since the last eviction"
        );
    }
}
