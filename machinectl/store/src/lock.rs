//! Locks that die with their process, and who holds them.
//!
//! A change of a machine holds an exclusive `flock` on the machine's directory. A
//! snapshot in use has a shared one on its own directory, held by the agent and by
//! the guest that inherits the descriptor.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::MachineName;

use crate::error::IoContext;
use crate::{MachineRefusal, Refusal, RefusalKind, Result, Volume};

/// How long we sleep between two tries to take a lock.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// A reason not to change what another process uses.
#[derive(Debug, thiserror::Error)]
pub enum LockRefusal {
    /// Another process is changing the machine.
    #[error(
        "machine `{machine}` is locked by {}; retry after that has ended",
        list(holders)
    )]
    Locked {
        /// The machine.
        machine: MachineName,
        /// The processes that hold the lock.
        holders: Vec<Holder>,
    },
    /// Other processes, such as a build's guest, use the directory.
    #[error("`{}` is in use by {}; retry after that has ended", path.display(), list(holders))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The processes that use it.
        holders: Vec<Holder>,
    },
    /// A `btrfs send` reads the subvolume.
    #[error("`{}` is being sent; retry after that has ended", .0.display())]
    Sending(PathBuf),
}

impl Refusal for LockRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Locked { .. } => RefusalKind::Locked,
            Self::InUse { .. } | Self::Sending(_) => RefusalKind::InUse,
        }
    }
}

impl LockRefusal {
    /// Returns the refusal for a directory, with the processes that hold its lock.
    pub(crate) fn in_use(path: &Path) -> Self {
        Self::InUse {
            path: path.to_owned(),
            holders: holders(path),
        }
    }
}

fn list(holders: &[Holder]) -> String {
    if holders.is_empty() {
        return "a process of another namespace or user".to_owned();
    }
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Whoever holds this may change the machine.
#[derive(Debug)]
pub(crate) struct MachineLock(File);

impl MachineLock {
    /// Another descriptor of the same lock, for a child that must keep it.
    pub(crate) fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

impl Volume {
    /// Takes the lock of a machine whose directory is there.
    pub(crate) fn lock(&self, machine: &MachineName) -> Result<MachineLock> {
        let path = self.directory(machine);
        let deadline = Instant::now() + self.patience;
        loop {
            let file = match open_directory(&path) {
                Ok(file) => file,
                Err(error) if is_missing(&error) => {
                    return Err(MachineRefusal::NotFound(machine.clone()).into());
                }
                Err(error) => return Err(error).context("open", &path),
            };
            let locked = until(deadline, || attempt(file.try_lock())).context("lock", &path)?;
            if !locked {
                let machine = machine.clone();
                let holders = holders(&path);
                return Err(LockRefusal::Locked { machine, holders }.into());
            }
            // Whoever held it may have removed the directory, and another one may
            // have made a new one: only a lock on what is there counts.
            if same_file(&file, &path) {
                return Ok(MachineLock(file));
            }
        }
    }
}

/// Opens a directory, never through a link.
pub(crate) fn open_directory(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Whether a lock was taken, when it is not an error.
pub(crate) fn attempt(result: Result<(), TryLockError>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Tries until it works or the time is over; at least once.
pub(crate) fn until(
    deadline: Instant,
    mut attempt: impl FnMut() -> io::Result<bool>,
) -> io::Result<bool> {
    loop {
        if attempt()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Takes a subvolume for deletion: while the result lives, nobody can begin to use
/// it. `None` when somebody uses it.
pub(crate) fn unused(path: &Path) -> io::Result<Option<File>> {
    let file = open_directory(path)?;
    // Others probe as we do, for an instant: one failure proves nothing.
    let deadline = Instant::now() + 3 * PAUSE;
    Ok(until(deadline, || attempt(file.try_lock()))?.then_some(file))
}

/// Whether somebody uses a subvolume. A path that is gone is not in use.
pub(crate) fn in_use(path: &Path) -> bool {
    open_directory(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The same, but sure of it: a probe of somebody else, which takes an instant, is not
/// taken for a use.
pub(crate) fn is_held(path: &Path) -> bool {
    matches!(unused(path), Ok(None))
}

/// The processes that hold a lock on a directory, as far as we may see them.
pub(crate) fn holders(path: &Path) -> Vec<Holder> {
    processes(path, true)
}

/// The processes that have a directory open.
pub(crate) fn visitors(path: &Path) -> Vec<Holder> {
    processes(path, false)
}

fn processes(path: &Path, locked: bool) -> Vec<Holder> {
    let Ok(wanted) = fs::symlink_metadata(path) else {
        return Vec::new();
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = processes
        .flatten()
        .filter_map(|process| process.file_name().to_str()?.parse().ok());
    let mut holders: Vec<_> = pids
        .filter_map(|pid| holder(pid, &wanted, locked))
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

fn holder(pid: u32, wanted: &fs::Metadata, locked: bool) -> Option<Holder> {
    let process = Path::new("/proc").join(pid.to_string());
    let holds = fs::read_dir(process.join("fd"))
        .ok()?
        .flatten()
        .any(|descriptor| {
            let same = fs::metadata(descriptor.path())
                .is_ok_and(|data| (data.dev(), data.ino()) == (wanted.dev(), wanted.ino()));
            let info = process.join("fdinfo").join(descriptor.file_name());
            same && (!locked || fs::read_to_string(info).is_ok_and(|text| text.contains("FLOCK")))
        });
    let name = fs::read_to_string(process.join("comm")).ok()?;
    let name = name.trim_end().to_owned();
    holds.then_some(Holder { pid, name })
}
