//! The real pool: btrfs, through libbtrfsutil.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libbtrfsutil::{
    CreateSnapshotOptions, DeleteSubvolumeOptions, ErrorKind, IterateSubvolume, SubvolumeInfo,
};

use super::names::{exchange, gone, there};
use super::{Change, Subvolume, SubvolumeBackend, Uuid};
use sys::file;

/// The inode of every subvolume's top directory.
const TOP: u64 = 256;
/// The bit of a subvolume's flags that says read-only.
const READ_ONLY: u64 = 1;
/// What `statfs` says of btrfs.
const MAGIC: u64 = 0x9123_683e;

/// Whether a path is on btrfs.
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == MAGIC))
}

/// Subvolumes on btrfs. Needs the right to administer the file system.
#[derive(Debug, Clone, Copy)]
pub struct BtrfsBackend;

/// The library's errors carry what the kernel said; that is what callers need.
fn kernel<T>(result: Result<T, libbtrfsutil::Error>) -> io::Result<T> {
    result.map_err(|error| error.os_error())
}

fn known(info: &SubvolumeInfo) -> Subvolume {
    Subvolume {
        uuid: info.uuid(),
        parent_uuid: info.parent_uuid(),
        received_uuid: info.received_uuid(),
        transaction: info.stransid().map_or(info.ctransid(), u64::from),
        read_only: info.flags() & READ_ONLY != 0,
        created: info.created(),
    }
}

/// Whether a path can be a subvolume at all; on btrfs, it is one then.
fn is_top(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok(data.is_dir() && data.ino() == TOP),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl SubvolumeBackend for BtrfsBackend {
    fn info(&self, path: &Path) -> io::Result<Option<Subvolume>> {
        if !is_top(path)? {
            return Ok(None);
        }
        match libbtrfsutil::subvolume_info(path) {
            Ok(info) => Ok(Some(known(&info))),
            // A directory of another file system, which the library looks for itself.
            Err(error)
                if [ErrorKind::NOT_BTRFS, ErrorKind::NOT_SUBVOLUME].contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.os_error()),
        }
    }

    fn find(&self, path: &Path, identity: Uuid) -> io::Result<Vec<Subvolume>> {
        let all = kernel(IterateSubvolume::new(path).all().iter_with_info())?;
        let matching = all.filter_map(|item| match kernel(item) {
            Ok((_, info)) => Some(known(&info))
                .filter(|it| it.has_identity(identity))
                .map(Ok),
            // One that is deleted while we walk.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        });
        matching.collect()
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        kernel(libbtrfsutil::create_subvolume(path))
    }

    fn snapshot(&self, source: &Path, target: &Path) -> io::Result<()> {
        kernel(CreateSnapshotOptions::new().create(source, target))
    }

    fn freeze(&self, source: &Path, target: &Path) -> io::Result<()> {
        kernel(
            CreateSnapshotOptions::new()
                .readonly(true)
                .create(source, target),
        )
    }

    fn delete(&self, path: &Path) -> io::Result<Change> {
        let mut options = DeleteSubvolumeOptions::new();
        match kernel(options.delete(path)) {
            // Subvolumes inside, which a guest may have made: inner ones first.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                gone(kernel(options.recursive(true).delete(path)))
            }
            result => gone(result),
        }
    }

    fn seal(&self, path: &Path) -> io::Result<()> {
        kernel(libbtrfsutil::set_subvolume_read_only(path, true))
    }

    fn commit(&self, path: &Path) -> io::Result<()> {
        // This also wakes the cleaner, which would sleep for up to 30 seconds.
        kernel(libbtrfsutil::sync(path))
    }

    fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        exchange(one, other)
    }

    fn unlink(&self, path: &Path) -> io::Result<Change> {
        gone(fs::remove_file(path))
    }

    fn make_directory(&self, path: &Path) -> io::Result<Change> {
        there(fs::create_dir(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<Change> {
        gone(fs::remove_dir(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        file::replace(path, content)
    }
}
