//! The cache of a build's guest: its access, and what becomes of the entries that it has put.

use std::error::Error;
use std::sync::Arc;

use cache::rules::{self, ReadOnly};
use cache::{Cache, CacheAccess};
use config::builds::Build;
use config::cache::{CacheMode, CacheUse};
use sys::blocking::blocking;
use tracing::{info, warn};

use state::AgentState;

/// Returns the use of a cache by a build; `None` if its machine and toolchain have none.
pub(super) fn use_of(agent: &AgentState, build: &Build) -> Option<CacheUse> {
    let settings = agent.settings();
    let rules = settings.cache_of(&build.machine, &build.toolchain)?;
    Some(CacheUse {
        name: rules.name.clone(),
        mode: rules::mode(rules, build),
    })
}

/// Returns the mode for the task of a build.
pub(super) fn mode(agent: &AgentState, build: &Build) -> Option<CacheMode> {
    use_of(agent, build).map(|used| used.mode)
}

/// Returns the access of a new guest of a build.
pub(super) async fn of_new_guest(agent: &AgentState, build: &Build) -> Option<CacheAccess> {
    open(agent, build, CacheAccess::of_new_guest).await
}

/// Returns the access of a build's guest that an earlier agent has started.
pub(super) async fn of_adopted_guest(agent: &AgentState, build: &Build) -> Option<CacheAccess> {
    open(agent, build, CacheAccess::of_adopted_guest).await
}

/// Returns the access of a debug session of a build.
pub(crate) fn of_debug_session(agent: &AgentState, build: &Build) -> Option<CacheAccess> {
    let cache = agent.caches.of(&build.machine, &build.toolchain)?;
    Some(CacheAccess::read_only(cache, ReadOnly::DebugSession))
}

async fn open(
    agent: &AgentState,
    build: &Build,
    open: fn(&Arc<Cache>, &Build) -> CacheAccess,
) -> Option<CacheAccess> {
    let cache = agent.caches.of(&build.machine, &build.toolchain)?;
    let (cache, build) = (Arc::clone(cache), build.clone());
    Some(blocking(move || open(&cache, &build)).await)
}

/// Publishes what a build has put if it was `good` and nobody typed in its guest; otherwise drops
/// it. Must come before the build is recorded as finished, so that those that wait for it find the
/// entries; an agent that is killed in between repeats it.
pub(super) async fn settle(agent: &AgentState, build: &Build, good: bool) {
    let Some(cache) = agent.caches.of(&build.machine, &build.toolchain) else {
        return;
    };
    let good = good && !was_typed_in(agent, build).await;
    let (cache, id, build) = (Arc::clone(cache), build.id, build.clone());
    match blocking(move || cache.settle(&build, good)).await {
        Ok(Some(published)) if published != cache::Published::default() => {
            let (entries, conflicts) = (published.entries, published.conflicts);
            info!(build = %id, entries, conflicts, "published what a build put into its cache");
        }
        Ok(_) => {}
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(build = %id, error, "cannot publish what a build put into its cache");
        }
    }
}

/// Returns true if a person has typed on the console of the guest, or if that is unknown.
async fn was_typed_in(agent: &AgentState, build: &Build) -> bool {
    match agent.records.get(build.id).await {
        Ok(Some(recorded)) => !recorded.typists.is_empty(),
        Ok(None) | Err(_) => true,
    }
}
