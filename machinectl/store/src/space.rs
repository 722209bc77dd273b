//! How much room a file system has left.

use std::path::Path;

use crate::error::IoContext;
use crate::{Result, Volume};

/// The bytes that can still be written below a path. On btrfs this is 0 as well
/// when only the metadata is full. After a deletion it is true from the next
/// commit on.
///
/// # Errors
/// When the path is not there.
pub fn bytes_free(path: &Path) -> Result<u64> {
    let known = rustix::fs::statvfs(path)
        .map_err(std::io::Error::from)
        .context("look at", path)?;
    Ok(known.f_bavail.saturating_mul(known.f_frsize))
}

impl Volume {
    /// See [`bytes_free`].
    ///
    /// # Errors
    /// When the volume is not there any more.
    pub fn free(&self) -> Result<u64> {
        bytes_free(self.path())
    }
}
