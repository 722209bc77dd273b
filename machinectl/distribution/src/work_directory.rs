//! The temporary directory of a machine in the making.
//!
//! It is deleted when it is dropped and also when its process is killed: a small process waits
//! for that. After a power failure, the next making deletes it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::fs::{FlockOperation, flock};
use sys::command;
use tempfile::TempDir;

/// The start of the directory's name.
const PREFIX: &str = "buildhost-image.";
/// The number of further attempts to create a directory.
const TRIES_MAX: u32 = 4;
/// The script that deletes a directory after the end of its standard input. Processes that still
/// write into the directory end at the same time, so it tries again.
const CLEANER: &str = "trap '' HUP INT TERM; cat >/dev/null; \
    for try in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- \"$1\" 2>/dev/null && exit; sleep 0.2; done";

/// A directory that is deleted at the end of its process at the latest.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    path: PathBuf,
    _lock: File,
    cleaner: Child,
}

impl WorkDirectory {
    /// Creates an empty directory below `parent`, and deletes those of killed processes there.
    pub(crate) fn create(parent: &Path) -> io::Result<Self> {
        delete_abandoned(parent)?;
        let (directory, lock) = create_locked(parent)?;
        let mut cleaner = command::prepare("sh");
        cleaner.args(["-c", CLEANER, "sh"]).arg(directory.path());
        cleaner
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Signals of the terminal are for the making, not for what cleans up after it.
        let cleaner = cleaner.process_group(0).current_dir("/").spawn()?;
        Ok(Self {
            path: TempDir::keep(directory),
            _lock: lock,
            cleaner,
        })
    }

    /// Returns its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a directory in it for a user.
    pub(crate) fn create_for(&self, name: &str, user: u32) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        chown(&path, Some(user), Some(user))?;
        Ok(path)
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        drop(self.cleaner.stdin.take());
        // There is nothing to do about a failure; the next making deletes the directory.
        let _ = self.cleaner.wait();
    }
}

/// Creates a directory that is locked. Until it is, another making may delete it as abandoned.
fn create_locked(parent: &Path) -> io::Result<(TempDir, File)> {
    let mut tries = 1..=TRIES_MAX;
    loop {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let locked = sys::trusted::open(directory.path()).and_then(|lock| {
            flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            directory.path().symlink_metadata().map(|_| lock)
        });
        match (locked, tries.next()) {
            (Ok(lock), _) => return Ok((directory, lock)),
            (Err(error), None) => return Err(error),
            (Err(_), Some(_)) => {}
        }
    }
}

/// Deletes the directories of processes that have ended.
fn delete_abandoned(parent: &Path) -> io::Result<()> {
    for path in sys::file::entries(parent)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.starts_with(PREFIX)
            && path.symlink_metadata().is_ok_and(|it| {
                it.is_dir()
                    && std::os::unix::fs::MetadataExt::uid(&it)
                        == rustix::process::geteuid().as_raw()
            });
        if !is_ours {
            continue;
        }
        let Ok(directory) = sys::trusted::open(&path) else {
            continue;
        };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            match fs::remove_dir_all(&path) {
                // Another making was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                deleted => deleted?,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_deleted_with_its_content() {
        let parent = tempfile::tempdir().unwrap();
        let directory = WorkDirectory::create(parent.path()).unwrap();
        let path = directory.path().to_owned();
        fs::create_dir_all(path.join("a/b")).unwrap();
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn abandoned_directories_are_deleted_and_used_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let used = WorkDirectory::create(parent.path()).unwrap();
        let names = ["buildhost-image.abandoned", "unrelated"];
        let [abandoned, unrelated] = names.map(|name| parent.path().join(name));
        fs::create_dir(&unrelated).unwrap();
        fs::create_dir_all(abandoned.join("root/etc")).unwrap();
        let next = WorkDirectory::create(parent.path()).unwrap();
        assert!(used.path().exists() && next.path().exists() && unrelated.exists());
        assert!(!abandoned.exists());
    }
}
