//! The place of a file: a file system that several hosts share, or a directory in which nothing can
//! be created.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{
    AFS_SUPER_MAGIC, CODA_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs,
};
use nix::unistd::{AccessFlags, access};

use super::super::StoreError;
use super::{beside, directory_of};

/// The file systems that hosts share, by their magic numbers (`linux/magic.h` and the sources of
/// the file systems). Locks and shared memory of SQLite work on one host only.
const SHARED_FILE_SYSTEMS: [(FsType, &str); 8] = [
    (NFS_SUPER_MAGIC, "NFS"),
    (SMB_SUPER_MAGIC, "SMB"),
    (FsType(0xff53_4d42), "SMB"),
    (FsType(0xfe53_4d42), "SMB"),
    (AFS_SUPER_MAGIC, "AFS"),
    (CODA_SUPER_MAGIC, "Coda"),
    (FsType(0x00c3_6400), "Ceph"),
    (FsType(0x0bd0_0bd0), "Lustre"),
];

/// The way in which a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMethod {
    /// With locks, because another process may write.
    Locked,
    /// Without locks and without files beside it, because no process can have it open for writing.
    Immutable,
}

/// The state of a file that is read without locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    file: (u64, u64, i64, i64),
    is_open_elsewhere: bool,
}

/// Refuses a file on a file system that hosts share.
pub(super) fn refuse_shared(file: &Path) -> Result<(), StoreError> {
    refuse_shared_by(file, |directory| {
        Ok(statfs(directory)
            .map_err(io::Error::from)?
            .filesystem_type())
    })
}

fn refuse_shared_by(
    file: &Path,
    file_system: impl Fn(&Path) -> io::Result<FsType>,
) -> Result<(), StoreError> {
    // The file itself may be a symbolic link, or be mounted.
    let place = if file.exists() {
        file
    } else {
        directory_of(file)
    };
    let found = file_system(place).map_err(|source| StoreError::File {
        path: place.to_owned(),
        source,
    })?;
    match SHARED_FILE_SYSTEMS
        .iter()
        .find(|(magic, _)| *magic == found)
    {
        None => Ok(()),
        Some((_, name)) => Err(StoreError::SharedFileSystem {
            path: file.to_owned(),
            name,
        }),
    }
}

/// Returns the way to read a file.
pub(super) fn read_method(file: &Path) -> ReadMethod {
    choose(can_create_beside(file), has_log(file))
}

/// Tests whether this process can create files in the directory of a file.
pub(super) fn can_create_beside(file: &Path) -> Result<(), Errno> {
    access(directory_of(file), AccessFlags::W_OK)
}

/// SQLite creates the shared memory beside a file that nothing has open. Where it cannot, the file
/// is complete by itself unless it has a write-ahead log.
fn choose(can_create: Result<(), Errno>, has_log: bool) -> ReadMethod {
    match (can_create, has_log) {
        (Err(_), false) => ReadMethod::Immutable,
        (Ok(()), _) | (Err(_), true) => ReadMethod::Locked,
    }
}

impl Stamp {
    /// Returns the current state of a file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: (
                metadata.ino(),
                metadata.size(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            ),
            is_open_elsewhere: has_log(path),
        })
    }

    /// Returns true if a process has opened the file for writing or has changed it since.
    pub(super) fn is_outdated(&self) -> bool {
        Self::of(&self.path).map_or(true, |now| now != *self)
    }
}

fn has_log(file: &Path) -> bool {
    beside(file, "-wal").exists()
}

#[cfg(test)]
mod tests {
    use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC};

    use super::*;

    #[test]
    fn a_file_system_that_hosts_share_is_refused_by_its_name() {
        let file = Path::new("/nonexistent/prserv.sqlite3");
        let check = |magic| refuse_shared_by(file, |_| Ok(magic));
        for (magic, name) in SHARED_FILE_SYSTEMS {
            let error = check(magic).unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains("PostgreSQL"),
                "{error}"
            );
        }
        for magic in [BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC] {
            check(magic).unwrap();
        }
    }

    #[test]
    fn the_file_system_is_that_of_the_file_or_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prserv.sqlite3");
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = |place: &Path| {
            asked.borrow_mut().push(place.to_owned());
            Ok(EXT4_SUPER_MAGIC)
        };
        refuse_shared_by(&file, ask).unwrap();
        fs::File::create(&file).unwrap();
        refuse_shared_by(&file, ask).unwrap();
        assert_eq!(*asked.borrow(), [directory.path(), &file]);
        refuse_shared(&file).unwrap();
    }

    #[test]
    fn a_file_is_immutable_where_nothing_can_be_created_and_it_has_no_log() {
        for (can_create, has_log, expected) in [
            (Ok(()), false, ReadMethod::Locked),
            (Ok(()), true, ReadMethod::Locked),
            (Err(Errno::EROFS), false, ReadMethod::Immutable),
            (Err(Errno::EACCES), false, ReadMethod::Immutable),
            (Err(Errno::EROFS), true, ReadMethod::Locked),
        ] {
            assert_eq!(choose(can_create, has_log), expected);
        }
    }

    #[test]
    fn a_stamp_is_outdated_by_a_change_or_by_another_process_that_opens_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prserv.sqlite3");
        sys::file::replace(&file, b"one").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        assert!(!stamp.is_outdated());
        fs::File::create(beside(&file, "-wal")).unwrap();
        assert!(stamp.is_outdated());
        fs::remove_file(beside(&file, "-wal")).unwrap();
        assert!(!stamp.is_outdated());
        sys::file::replace(&file, b"other").unwrap();
        assert!(stamp.is_outdated());
        fs::remove_file(&file).unwrap();
        assert!(stamp.is_outdated());
    }
}
