//! The decisions about caches; pure.

use config::builds::{Build, Submitter};
use config::cache::{Area, CacheMode, CachePath};
use config::settings::CacheRules;
use config::{BuildId, CacheName};

use crate::content::ContentHash;

/// The reason for which a guest only reads its cache.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadOnly {
    /// Builds of the submitter do not fill it.
    #[error(
        "builds of {submitter} only read the cache {cache}; an administrator names those who fill it \
         in the settings, as its `writers`"
    )]
    Submitter {
        /// The submitter.
        submitter: Submitter,
        /// The cache.
        cache: CacheName,
    },
    /// The build continues as a copy of another one.
    #[error("a copy of a forked build only reads the cache")]
    Copy,
    /// It runs on a revision on trial.
    #[error("a build on a revision that is on trial only reads the cache")]
    Trial,
    /// It stops for a person.
    #[error("a build with a breakpoint only reads the cache, because a person has a shell in it")]
    Breakpoint,
    /// The guest is one for debugging.
    #[error("a debug session only reads the cache")]
    DebugSession,
    /// The host cannot take entries.
    #[error("the host cannot take entries of this build: build {0} has no place for them")]
    NoPlace(BuildId),
}

/// Returns the rights of a build at its cache, and the reason if it only reads.
pub fn rights(rules: &CacheRules, build: &Build) -> Result<(), ReadOnly> {
    if !rules.writers.contains(&build.submitter) {
        return Err(ReadOnly::Submitter {
            submitter: build.submitter.clone(),
            cache: rules.name.clone(),
        });
    }
    if build.forked_from.is_some() {
        return Err(ReadOnly::Copy);
    }
    if build.running_trial().is_some() {
        return Err(ReadOnly::Trial);
    }
    if build.interactive.breakpoint.is_some() {
        return Err(ReadOnly::Breakpoint);
    }
    Ok(())
}

/// Returns the mode of a build at its cache.
pub fn mode(rules: &CacheRules, build: &Build) -> CacheMode {
    match rights(rules, build) {
        Ok(()) => CacheMode::Write,
        Err(_) => CacheMode::Read,
    }
}

/// The decision about an entry that a build has put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is added, or takes the place of the known one.
    Store,
    /// The known entry has the same content.
    Same,
    /// The known entry has another content, and stays.
    Conflict,
}

/// Decides about an entry that a build has put. A name among the downloads or in the shared state
/// stands for one content: who has it once may rely on it. Compiler caches replace their entries.
pub(crate) fn put(area: Area, known: Option<ContentHash>, new: ContentHash) -> Put {
    match (known, area) {
        (Some(known), _) if known == new => Put::Same,
        (None, _) | (Some(_), Area::Objects) => Put::Store,
        (Some(_), Area::Downloads | Area::SharedState) => Put::Conflict,
    }
}

/// Returns the entries to delete so that the others have at most `bytes_max`. `entries` begins with
/// those that were not used for the longest time; `bytes` is the size of all.
pub(crate) fn evicted(
    entries: impl IntoIterator<Item = (CachePath, u64)>,
    mut bytes: u64,
    bytes_max: u64,
) -> Vec<(CachePath, u64)> {
    let mut entries = entries.into_iter();
    let next = || {
        if bytes <= bytes_max {
            return None;
        }
        let entry = entries.next()?;
        bytes = bytes.saturating_sub(entry.1);
        Some(entry)
    };
    std::iter::from_fn(next).collect()
}

#[cfg(test)]
mod tests;
