//! The access of one guest to its cache.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use config::BuildId;
use config::builds::Build;
use config::cache::CachePath;
use jiff::Timestamp;
use tracing::warn;

use crate::CacheError;
use crate::cache::{Cache, Found};
use crate::rules::{self, ReadOnly};
use crate::staging::Staging;

/// The access of one guest to its cache.
#[derive(Clone)]
pub struct CacheAccess {
    pub(crate) cache: Arc<Cache>,
    /// The entries that the guest puts, or the reason for which it only reads.
    pub(crate) staging: Result<Arc<Staging>, ReadOnly>,
}

impl fmt::Debug for CacheAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheAccess")
            .field("cache", &self.cache.rules().name)
            .field("writes", &self.staging.is_ok())
            .finish()
    }
}

impl CacheAccess {
    /// Returns the access of a new guest of a build. What an earlier attempt has put is dropped. Blocks.
    pub fn of_new_guest(cache: &Arc<Cache>, build: &Build) -> Self {
        Self::of_build(cache, build, false)
    }

    /// Returns the access of a build's guest that an earlier agent has started. Blocks.
    pub fn of_adopted_guest(cache: &Arc<Cache>, build: &Build) -> Self {
        Self::of_build(cache, build, true)
    }

    fn of_build(cache: &Arc<Cache>, build: &Build, is_adopted: bool) -> Self {
        let staging =
            rules::rights(cache.rules(), build).and_then(|()| stage(cache, build.id, is_adopted));
        Self {
            cache: Arc::clone(cache),
            staging,
        }
    }

    /// Returns the access of a guest that only reads.
    pub fn read_only(cache: &Arc<Cache>, reason: ReadOnly) -> Self {
        Self {
            cache: Arc::clone(cache),
            staging: Err(reason),
        }
    }

    /// Returns the entry at a path: the guest's own one, or the published one. Blocks.
    pub(crate) fn find(&self, path: &CachePath, read: bool) -> Result<Option<Found>, CacheError> {
        let own = self.staging.as_ref().ok().and_then(|it| it.find(path));
        match own {
            Some((file, _)) => Ok(Some(Found { file })),
            None => self.cache.find(path, read, Timestamp::now()),
        }
    }
}

/// Returns the place for the entries of a build. A build without one only reads: its cache must not
/// make it fail.
fn stage(cache: &Cache, build: BuildId, is_adopted: bool) -> Result<Arc<Staging>, ReadOnly> {
    cache.stage(build, is_adopted).map_err(|error| {
        let error = &error as &dyn Error;
        warn!(%build, error, "a build gets no place for the entries of its cache");
        ReadOnly::NoPlace(build)
    })
}
