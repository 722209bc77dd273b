//! The mounts of this process, as the kernel lists them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// A line of `/proc/thread-self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The number of the mount.
    pub(crate) id: u64,
    /// The device number of the file system.
    pub(crate) device: String,
    /// The mounted directory of the file system.
    pub(crate) root: PathBuf,
    /// The mount point.
    pub(crate) point: PathBuf,
    /// The options of the mount.
    pub(crate) options: Vec<String>,
    /// The device.
    pub(crate) source: PathBuf,
    /// The options of the file system, which all its mounts share.
    pub(crate) super_options: Vec<String>,
}

impl Mount {
    /// Parses a line of the table.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mount: Vec<_> = mount.split(' ').collect();
        let file_system: Vec<_> = file_system.split(' ').collect();
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        Some(Self {
            id: mount.first()?.parse().ok()?,
            device: (*mount.get(2)?).to_owned(),
            root: unescape(mount.get(3)?),
            point: unescape(mount.get(4)?),
            options: list(mount.get(5)?),
            source: unescape(file_system.get(1)?),
            super_options: list(file_system.get(2)?),
        })
    }
}

/// Replaces the octal escapes that the kernel uses for separators.
fn unescape(text: &str) -> PathBuf {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
        .into()
}

/// Reads all mounts.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    let text = sys::trusted::read_text("/proc/thread-self/mountinfo")?;
    Ok(text.lines().filter_map(Mount::parse).collect())
}

/// Returns the mount that a path lies on.
///
/// # Errors
/// The path does not exist, or its mount is not listed.
pub(crate) fn mount_of<'m>(path: &Path, mounts: &'m [Mount]) -> io::Result<&'m Mount> {
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let mount = mounts.iter().find(|mount| mount.id == id);
    mount.ok_or_else(|| io::Error::other("its mount is not listed"))
}
