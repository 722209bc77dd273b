//! Caches between builds.

use config::CacheName;
use config::cache::{Cache, CacheContent, Deleted, ENTRIES_MAX, EntryFilter, PruneRequest};

use crate::{Client, Result};
use config::uri::percent_encode;

impl Client {
    /// Returns the caches.
    pub fn caches(&self) -> Result<Vec<Cache>> {
        self.get("caches")
    }

    /// Returns a cache with its entries whose paths begin with `prefix`.
    pub fn cache(&self, name: &CacheName, prefix: &str) -> Result<CacheContent> {
        let mut content = self.page(name, prefix, "")?;
        while let Some(next) = content.next.take() {
            let page = self.page(name, prefix, next.as_str())?;
            content.entries.extend(page.entries);
            content.next = page.next;
        }
        Ok(content)
    }

    fn page(&self, name: &CacheName, prefix: &str, after: &str) -> Result<CacheContent> {
        let (prefix, after) = (percent_encode(prefix), percent_encode(after));
        let query = format!("prefix={prefix}&after={after}&limit={ENTRIES_MAX}");
        self.get(&format!("caches/{name}?{query}"))
    }

    /// Prunes a cache.
    pub fn prune_cache(&self, name: &CacheName, request: PruneRequest) -> Result<Deleted> {
        self.post(&format!("caches/{name}/prune"), &request)
    }

    /// Deletes entries of a cache.
    pub fn delete_cache_entries(&self, name: &CacheName, filter: &EntryFilter) -> Result<Deleted> {
        let mut query = format!(
            "prefix={}&dry_run={}",
            percent_encode(&filter.prefix),
            filter.dry_run
        );
        if let Some(build) = filter.build {
            query = format!("{query}&build={build}");
        }
        self.delete_for(&format!("caches/{name}?{query}"))
    }
}
