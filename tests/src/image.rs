//! Files with file systems.

use std::path::Path;
use std::time::Duration;

use sys::command;
use tempfile::NamedTempFile;

/// The time limit for a command.
const LIMIT: Duration = Duration::from_mins(1);

/// A temporary file with a file system.
#[derive(Debug)]
pub struct Image(NamedTempFile);

impl Image {
    /// Creates a btrfs of this many MiB in a sparse file.
    pub fn btrfs(mebibytes: u64) -> Self {
        let prefix = format!("buildhost-test-{}-", std::process::id());
        let file = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".img")
            .tempfile();
        let file = file.expect("an image file");
        file.as_file()
            .set_len(mebibytes << 20)
            .expect("a sparse file");
        let mut mkfs = command::prepare("mkfs.btrfs");
        mkfs.arg("--quiet").arg(file.path());
        command::run(mkfs, LIMIT).expect("mkfs.btrfs");
        Self(file)
    }

    /// Copies a file with a file system.
    pub fn copy_of(path: &Path) -> Self {
        let file = tempfile::Builder::new().suffix(".img").tempfile();
        let file = file.expect("an image file");
        copy_sparse(path, file.path());
        Self(file)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Copies a file and keeps its holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) {
    let mut cp = command::prepare("cp");
    cp.arg("--sparse=always").args([from, to]);
    command::run(cp, LIMIT).expect("cp");
}
