//! Questions to the files of revisions and snapshots, and the content manifests of images.

use std::io::Read;

use config::layout::Entry;
use config::{FileName, MachineName, Revision};
use contents::content_manifest::{self, IMAGE_FILE};

use crate::{Result, Snapshot, Volume};
use btrfs::error::IoContext;

/// The number of bytes at the start of a disk in which partition tables and file systems have
/// their first block.
const FIRST_BLOCKS: u64 = 128 << 10;

impl Volume {
    /// Returns true if the disk of a revision begins with so many zeros that it has neither a
    /// partition table nor a file system.
    pub fn has_blank_disk(&self, machine: &MachineName, revision: Revision) -> bool {
        let path = self.entry(machine, &Entry::Revision(revision));
        let Ok(disk) = sys::untrusted::open(&path, FileName::disk()) else {
            return false;
        };
        let mut start = Vec::new();
        let read = disk.take(FIRST_BLOCKS).read_to_end(&mut start);
        read.is_ok() && start.iter().all(|byte| *byte == 0)
    }
}

impl Snapshot {
    /// Writes the content manifest of an image into it, before it is published. Reads the whole
    /// image.
    ///
    /// # Errors
    /// The image cannot be read or written.
    pub fn write_image_manifest(&self) -> Result<()> {
        let path = self.path().join(IMAGE_FILE);
        let manifest = content_manifest::scan_image(self.path())?;
        sys::file::replace(&path, manifest.print().as_bytes()).context("write", &path)
    }

    /// Returns true if the snapshot is of an image that has a content manifest.
    pub fn has_image_manifest(&self) -> bool {
        self.path().join(IMAGE_FILE).symlink_metadata().is_ok()
    }
}
