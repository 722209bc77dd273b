//! The free space of a file system.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use sys::command::{self, CommandError};

use crate::{Result, Volume};
use btrfs::error::IoContext;

/// The time limit for waiting until the space of deleted subvolumes is free.
const RECLAIM_TIMEOUT: Duration = Duration::from_mins(1);

/// Returns the number of bytes that can still be written below a path.
///
/// On btrfs the number is also 0 if only the metadata is full. It includes the space of
/// deleted files after the next commit.
///
/// # Errors
/// The path does not exist.
pub fn bytes_free(path: &Path) -> Result<u64> {
    Ok(space(path)?.free)
}

/// The space of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// The free part; see [`bytes_free`].
    pub free: u64,
}

fn space(path: &Path) -> Result<Space> {
    let statistics = rustix::fs::statvfs(path)
        .map_err(io::Error::from)
        .context("inspect", path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(statistics.f_frsize);
    Ok(Space {
        total: bytes(statistics.f_blocks),
        free: bytes(statistics.f_bavail),
    })
}

impl Volume {
    /// Returns the volume's free space; see [`bytes_free`].
    ///
    /// # Errors
    /// The volume does not exist any more.
    pub fn free(&self) -> Result<u64> {
        bytes_free(self.path())
    }

    /// Returns the size and the free space of the volume's file system.
    ///
    /// # Errors
    /// The volume does not exist any more.
    pub fn space(&self) -> Result<Space> {
        space(self.path())
    }

    /// Waits up to a minute until the space of deleted subvolumes is free.
    ///
    /// # Errors
    /// The file system cannot commit.
    pub fn reclaim(&self) -> Result<()> {
        self.reclaim_within(RECLAIM_TIMEOUT)
    }

    /// Waits up to `limit` until the space of deleted subvolumes is free.
    ///
    /// # Errors
    /// The file system cannot commit.
    pub fn reclaim_within(&self, limit: Duration) -> Result<()> {
        self.commit()?;
        let mut sync = command::prepare("btrfs");
        sync.args(["subvolume", "sync"]).arg(self.path());
        // A deleted subvolume keeps its space while a process has it open, which is no error.
        let start = Instant::now();
        match command::run(sync, limit) {
            Ok(_) | Err(CommandError::TimedOut { .. }) => {}
            Err(error) if start.elapsed() < limit => return Err(error.into()),
            Err(_) => {}
        }
        // `statvfs` counts the space after one more commit.
        self.commit()
    }
}
