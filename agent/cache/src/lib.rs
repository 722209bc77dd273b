//! Caches between builds: the results of one build that spare others the same work, such as
//! downloads, BitBake's shared state, and the objects of compiler caches.
//!
//! - A cache has an index of its entries and a file for each content, named by its hash. No name
//!   from a guest is a path of the host.
//! - A guest reads the cache of its machine and toolchain over HTTP. What it puts waits in a staging
//!   directory of its build, which only that guest reads, until the build has succeeded.
//! - [`rules`] decides: who may put, what replaces what, and which entries are deleted.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read and damage files that they have made"
    )
)]

use std::io;
use std::path::{Path, PathBuf};

mod access;
mod cache;
mod caches;
mod content;
mod http;
mod index;
mod journal;
pub mod rules;
mod staging;

pub use access::CacheAccess;
pub use cache::{Cache, Published};
pub use caches::Caches;

/// A failure of a cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The index failed.
    #[error(
        "cannot use {path}; if it is damaged, stop the agent and delete the directory of the cache, \
         which is filled again"
    )]
    Index {
        /// The index.
        path: PathBuf,
        /// The failure.
        source: rusqlite::Error,
    },
    /// A newer agent has written the index.
    #[error("{path} was written by a newer agent, in format {format}")]
    Newer {
        /// The index.
        path: PathBuf,
        /// Its format.
        format: i64,
    },
    /// A file failed.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

/// Adds its path to the failure of a file.
fn failed(path: &Path) -> impl Fn(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::File {
        path: path.clone(),
        source,
    }
}
