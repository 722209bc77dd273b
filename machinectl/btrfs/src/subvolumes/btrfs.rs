//! The backend on btrfs, through libbtrfsutil.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libbtrfsutil::{
    CreateSnapshotOptions, DeleteSubvolumeOptions, ErrorKind, IterateSubvolume, SubvolumeInfo,
};
use sys::{command, file};

use super::inode;
use super::names::{exchange, unchanged_if_exists, unchanged_if_missing};
use super::{Change, Subvolume, SubvolumeBackend, Uuid};

/// The inode number of every subvolume's top directory.
const TOP_INODE: u64 = 256;
/// The flag of read-only subvolumes.
const READ_ONLY: u64 = 1;
/// The type that `statfs` returns for btrfs.
const MAGIC: u64 = 0x9123_683e;

/// Returns true if a path is on btrfs.
pub fn is_btrfs(path: &Path) -> io::Result<bool> {
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| kind == MAGIC))
}

/// The time limit for `btrfs`, which answers at once.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The backend on btrfs. Requires `CAP_SYS_ADMIN`.
#[derive(Debug, Clone, Copy)]
pub struct BtrfsBackend;

/// Returns the kernel's error, which the library's error contains.
fn os<T>(result: Result<T, libbtrfsutil::Error>) -> io::Result<T> {
    result.map_err(|error| error.os_error())
}

fn properties(info: &SubvolumeInfo) -> Subvolume {
    Subvolume {
        uuid: info.uuid(),
        parent_uuid: info.parent_uuid(),
        received_uuid: info.received_uuid(),
        created_transaction: info.otransid(),
        transaction: info.ctransid(),
        received_transaction: info.stransid().map(u64::from),
        read_only: info.flags() & READ_ONLY != 0,
        created: info.created(),
    }
}

/// Returns true if a path looks like a subvolume's top directory. On btrfs it then is one.
fn is_top(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok(data.is_dir() && data.ino() == TOP_INODE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns the ID of the subvolume that is mounted by default. The library does not tell it.
fn default_id(path: &Path) -> io::Result<Option<u64>> {
    let mut get = command::prepare("btrfs");
    get.args(["subvolume", "get-default"]).arg(path);
    let answer = command::run(get, TIMEOUT).map_err(io::Error::other)?;
    Ok(parse_default_id(&String::from_utf8_lossy(&answer)))
}

/// Parses an answer such as `ID 5 (FS_TREE)`.
fn parse_default_id(answer: &str) -> Option<u64> {
    answer.split_whitespace().nth(1)?.parse().ok()
}

impl SubvolumeBackend for BtrfsBackend {
    fn info(&self, path: &Path) -> io::Result<Option<Subvolume>> {
        if !is_top(path)? {
            return Ok(None);
        }
        match libbtrfsutil::subvolume_info(path) {
            Ok(info) => Ok(Some(properties(&info))),
            // A directory with this inode number on another file system.
            Err(error)
                if [ErrorKind::NOT_BTRFS, ErrorKind::NOT_SUBVOLUME].contains(&error.kind()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.os_error()),
        }
    }

    fn find(&self, path: &Path, identity: Uuid) -> io::Result<Vec<Subvolume>> {
        let all = os(IterateSubvolume::new(path).all().iter_with_info())?;
        let matching = all.filter_map(|item| match os(item) {
            Ok((_, info)) => Some(properties(&info))
                .filter(|it| it.has_identity(identity))
                .map(Ok),
            // It was deleted after it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        });
        matching.collect()
    }

    fn inner(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let inner = os(IterateSubvolume::new(path).iter_with_id())?;
        inner.map(|item| os(item).map(|(path, _)| path)).collect()
    }

    fn find_default(&self, subvolumes: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        let Some(first) = subvolumes.first() else {
            return Ok(None);
        };
        let default = default_id(first)?;
        for path in subvolumes {
            match os(libbtrfsutil::subvolume_id(path)) {
                Ok(id) if Some(id) == default => return Ok(Some(path.clone())),
                Ok(_) => {}
                // It was deleted after it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        os(libbtrfsutil::create_subvolume(path))
    }

    fn snapshot(&self, source: &Path, target: &Path) -> io::Result<()> {
        os(CreateSnapshotOptions::new().create(source, target))
    }

    fn snapshot_read_only(&self, source: &Path, target: &Path) -> io::Result<()> {
        os(CreateSnapshotOptions::new()
            .readonly(true)
            .create(source, target))
    }

    fn delete(&self, path: &Path) -> io::Result<Change> {
        let mut options = DeleteSubvolumeOptions::new();
        match os(options.delete(path)) {
            // A guest may have created subvolumes inside, which must be deleted first, and can
            // be only if the subvolumes around them are writable.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                for inner in [PathBuf::new()].into_iter().chain(self.inner(path)?) {
                    os(libbtrfsutil::set_subvolume_read_only(
                        path.join(inner),
                        false,
                    ))?;
                }
                unchanged_if_missing(os(options.recursive(true).delete(path)))
            }
            result => unchanged_if_missing(result),
        }
    }

    fn make_read_only(&self, path: &Path) -> io::Result<()> {
        os(libbtrfsutil::set_subvolume_read_only(path, true))
    }

    fn make_writable(&self, path: &Path) -> io::Result<()> {
        os(libbtrfsutil::set_subvolume_read_only(path, false))
    }

    fn last_change(&self, file: &Path) -> io::Result<Option<u64>> {
        inode::last_change(file).map(Some)
    }

    fn commit(&self, path: &Path) -> io::Result<()> {
        // A sync also wakes btrfs's cleaner thread, which sleeps for up to 30 seconds.
        os(libbtrfsutil::sync(path))
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        exchange(one, other)
    }

    fn unlink(&self, path: &Path) -> io::Result<Change> {
        unchanged_if_missing(fs::remove_file(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<Change> {
        unchanged_if_exists(fs::create_dir(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<Change> {
        unchanged_if_missing(fs::remove_dir(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        unchanged_if_missing(fs::remove_file(path))?;
        file::create(path, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_subvolume_is_parsed_from_both_forms_of_the_answer() {
        for (answer, id) in [
            ("ID 5 (FS_TREE)\n", Some(5)),
            ("ID 256 gen 10 top level 5 path machines/a b\n", Some(256)),
            ("", None),
        ] {
            assert_eq!(parse_default_id(answer), id, "{answer}");
        }
    }
}
