//! The counters of caches between builds.

use config::CacheName;
use prometheus_client::registry::Registry;

use super::{Counters, Gauges, Labels, counter, gauge, set};

/// The result of a request to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// An entry was found.
    Hit,
    /// There is no such entry.
    Miss,
    /// A damaged entry was found, and deleted.
    Corrupt,
    /// An entry was put.
    Put,
    /// An entry was put that the cache has.
    Same,
    /// An entry was put and not taken.
    Refused,
}

impl CacheResult {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Hit, "hit"),
        (Self::Miss, "miss"),
        (Self::Corrupt, "corrupt"),
        (Self::Put, "put"),
        (Self::Same, "same"),
        (Self::Refused, "refused"),
    ];

    fn word(self) -> &'static str {
        let found = Self::ALL.iter().find(|(result, _)| *result == self);
        found.map_or("", |(_, word)| word)
    }
}

/// The direction of bytes between a guest and its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferDirection {
    /// To the guest.
    Read,
    /// From the guest.
    Written,
}

/// The counters and sizes of all caches.
#[derive(Debug)]
pub struct CacheMetrics {
    requests: Counters,
    bytes: Counters,
    published: Counters,
    deleted: Counters,
    size: Gauges,
    entries: Gauges,
}

impl CacheMetrics {
    pub(super) fn register(all: &mut Registry) -> Self {
        Self {
            requests: counter(all, "cache_requests", "Requests to caches between builds"),
            bytes: counter(all, "cache_bytes", "Bytes transferred by caches"),
            published: counter(
                all,
                "cache_published",
                "Entries that successful builds published in caches",
            ),
            deleted: counter(
                all,
                "cache_deleted",
                "Entries that were deleted from caches",
            ),
            size: gauge(all, "cache_size_bytes", "Size of caches"),
            entries: gauge(all, "cache_entries", "Entries of caches"),
        }
    }

    /// Counts a request.
    pub fn request(&self, cache: &CacheName, result: CacheResult) {
        let labels = labels(cache, "result", result.word());
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts bytes of a transfer.
    pub fn bytes(&self, cache: &CacheName, direction: TransferDirection, bytes: u64) {
        let direction = match direction {
            TransferDirection::Read => "read",
            TransferDirection::Written => "written",
        };
        let labels = labels(cache, "direction", direction);
        self.bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// Counts published entries.
    pub fn published(&self, cache: &CacheName, entries: u64) {
        self.published.get_or_create(&of(cache)).inc_by(entries);
    }

    /// Counts deleted entries.
    pub fn deleted(&self, cache: &CacheName, entries: u64) {
        self.deleted.get_or_create(&of(cache)).inc_by(entries);
    }

    /// Shows the size of a cache. The counters of a cache that is shown first begin with 0, so that
    /// their first growth is seen.
    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    pub fn size(&self, cache: &CacheName, entries: u64, bytes: u64) {
        set(&self.entries, &of(cache), entries as f64);
        set(&self.size, &of(cache), bytes as f64);
        for (_, word) in CacheResult::ALL {
            drop(self.requests.get_or_create(&labels(cache, "result", word)));
        }
        self.published(cache, 0);
        self.deleted(cache, 0);
        self.bytes(cache, TransferDirection::Read, 0);
        self.bytes(cache, TransferDirection::Written, 0);
    }
}

fn of(cache: &CacheName) -> Labels {
    vec![("cache", cache.to_string())]
}

fn labels(cache: &CacheName, label: &'static str, value: &str) -> Labels {
    vec![("cache", cache.to_string()), (label, value.to_owned())]
}
