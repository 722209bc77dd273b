//! Locks that end with their process, and the processes that hold them.
//!
//! A change of a machine holds an exclusive `flock` on the machine's directory, for an instant.
//! The creation of a revision can take hours, so it holds a lock of its own meanwhile, on the
//! directory [`Entry::Ingest`], and the machine's lock only to begin and to publish. A snapshot
//! in use has a shared lock on its own directory, held by the agent and by the guest that
//! inherits the descriptor. A parent of an arriving revision has one, too.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::MachineName;
use config::layout::Entry;
use rustix::fs::{Mode, OFlags};

use crate::{MachineRefusal, Refusal, RefusalKind, Result, Volume};
use btrfs::error::IoContext;

/// The pause between two attempts to acquire a lock.
pub(crate) const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// A process that holds a lock or has a directory open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process ID.
    pub pid: u32,
    /// The name of the program.
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
    /// Another process is creating a revision of the machine.
    #[error(
        "a revision of machine `{machine}` is being created by {}; retry after that has ended",
        list(holders)
    )]
    Ingesting {
        /// The machine.
        machine: MachineName,
        /// The processes that create the revision.
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
            Self::Locked { .. } | Self::Ingesting { .. } => RefusalKind::Locked,
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
        return "a process that is not visible here".to_owned();
    }
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// The exclusive lock of a machine. Only its holder may change the machine's directory.
#[derive(Debug)]
pub(crate) struct MachineLock(#[expect(dead_code, reason = "its drop releases the lock")] File);

/// The lock of an ingest. Its holder creates a revision; other changes of the machine go on.
#[derive(Debug)]
pub(crate) struct IngestLock(File);

impl IngestLock {
    /// Returns another descriptor of the lock, for a child process that must keep it.
    pub(crate) fn try_clone(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

impl Volume {
    /// Acquires the lock of an existing machine.
    pub(crate) fn lock(&self, machine: &MachineName) -> Result<MachineLock> {
        let path = self.directory(machine);
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            let file = match open_directory(&path) {
                Ok(file) => file,
                Err(error) if is_missing(&error) => {
                    return Err(MachineRefusal::NotFound(machine.clone()).into());
                }
                Err(error) => return Err(error).context("open", &path),
            };
            let locked =
                retry_until(deadline, || acquired(file.try_lock())).context("lock", &path)?;
            if !locked {
                let machine = machine.clone();
                let holders = holders(&path);
                return Err(LockRefusal::Locked { machine, holders }.into());
            }
            // The previous holder may have removed the directory, and another process may
            // have created it again. Only the lock on the present directory protects it.
            if is_same_file(&file, &path) {
                return Ok(MachineLock(file));
            }
        }
    }
}

impl Volume {
    /// Acquires the lock of a machine and the lock of its ingest.
    pub(crate) fn lock_for_ingest(
        &self,
        machine: &MachineName,
    ) -> Result<(MachineLock, IngestLock)> {
        let path = self.entry(machine, &Entry::Ingest);
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            let lock = self.lock(machine)?;
            self.backend
                .create_directory(&path)
                .context("create", &path)?;
            let file = open_directory(&path).context("open", &path)?;
            let locked = acquired(file.try_lock()).context("lock", &path)?;
            // The previous holder removes the directory without the machine's lock.
            if locked && is_same_file(&file, &path) {
                return Ok((lock, IngestLock(file)));
            }
            drop(lock);
            if Instant::now() >= deadline {
                return Err(self.ingesting(machine).into());
            }
            std::thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Removes the directory of an ingest's lock. Nobody else can acquire the lock of that
    /// directory; the next ingest creates another one.
    pub(crate) fn end_ingest(&self, machine: &MachineName, lock: &IngestLock) -> Result<()> {
        let path = self.entry(machine, &Entry::Ingest);
        if is_same_file(&lock.0, &path) {
            self.backend
                .remove_directory(&path)
                .context("remove", &path)?;
        }
        Ok(())
    }

    /// Returns the refusal of a change while a revision is being created.
    pub(crate) fn ingesting(&self, machine: &MachineName) -> LockRefusal {
        LockRefusal::Ingesting {
            machine: machine.clone(),
            holders: holders(&self.entry(machine, &Entry::Ingest)),
        }
    }
}

/// Opens a directory without following a symbolic link.
pub(crate) fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}

/// Returns true if a lock was acquired, and false if another process holds it.
pub(crate) fn acquired(result: Result<(), TryLockError>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Repeats an attempt, at least once, until it succeeds or the deadline has passed.
pub(crate) fn retry_until(
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
        std::thread::sleep(RETRY_INTERVAL);
    }
}

/// Acquires the exclusive lock of a subvolume, so that no process can start to use it while
/// the result lives. Returns `None` if a process uses the subvolume.
pub(crate) fn lock_unused(path: &Path) -> io::Result<Option<File>> {
    let file = open_directory(path)?;
    // Probes of other processes hold the lock for an instant, so one failure proves nothing.
    let deadline = Instant::now() + 3 * RETRY_INTERVAL;
    Ok(retry_until(deadline, || acquired(file.try_lock()))?.then_some(file))
}

/// Returns true if a process uses a subvolume or probes it at this instant. A missing
/// subvolume is not in use.
pub(crate) fn seems_in_use(path: &Path) -> bool {
    open_directory(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Returns true if a process uses a subvolume. Takes up to three times [`RETRY_INTERVAL`] to
/// tell a use from a probe.
pub(crate) fn is_in_use(path: &Path) -> bool {
    matches!(lock_unused(path), Ok(None))
}

/// Returns true if a process holds the exclusive lock of a directory. Probes share the lock, so
/// they do not count.
pub(crate) fn is_locked(path: &Path) -> bool {
    open_directory(path)
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Returns the visible processes that hold a lock on a directory.
pub(crate) fn holders(path: &Path) -> Vec<Holder> {
    Uses::of([path]).holders(path)
}

/// The identity of a directory: its device and its inode number.
type DirectoryId = (u64, u64);

/// The visible processes that have some directories open.
#[derive(Debug, Default)]
pub(crate) struct Uses(BTreeMap<DirectoryId, BTreeMap<u32, Use>>);

/// The use of a directory by one process.
#[derive(Debug)]
struct Use {
    holder: Holder,
    /// True if the process holds a lock on the directory.
    has_lock: bool,
}

impl Uses {
    /// Finds the uses of directories. A walk over the open files of all processes takes long, so
    /// one serves all directories.
    pub(crate) fn of<P: AsRef<Path>>(directories: impl IntoIterator<Item = P>) -> Self {
        let ids = directories.into_iter().filter_map(|path| id(path.as_ref()));
        let mut uses = Self(ids.map(|id| (id, BTreeMap::new())).collect());
        if uses.0.is_empty() {
            return uses;
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = process.file_name().to_str().and_then(|it| it.parse().ok());
            if let Some(pid) = pid {
                uses.add(pid, &process.path());
            }
        }
        uses
    }

    /// Adds the uses by a process.
    fn add(&mut self, pid: u32, process: &Path) {
        let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
        for descriptor in descriptors.flatten() {
            let file = fs::metadata(descriptor.path());
            let Some(users) = file
                .ok()
                .and_then(|it| self.0.get_mut(&(it.dev(), it.ino())))
            else {
                continue;
            };
            let Ok(name) = sys::trusted::read_text(process.join("comm")) else {
                return;
            };
            let info = process.join("fdinfo").join(descriptor.file_name());
            let has_lock = sys::trusted::read_text(info).is_ok_and(|text| text.contains("FLOCK"));
            let name = name.trim_end().to_owned();
            let user = users.entry(pid).or_insert_with(|| Use {
                holder: Holder { pid, name },
                has_lock: false,
            });
            user.has_lock |= has_lock;
        }
    }

    /// Returns the processes that hold a lock on a directory.
    pub(crate) fn holders(&self, path: &Path) -> Vec<Holder> {
        let users = self.users(path);
        users
            .filter(|it| it.has_lock)
            .map(|it| it.holder.clone())
            .collect()
    }

    /// Returns the processes that have a directory open.
    pub(crate) fn opened_by(&self, path: &Path) -> Vec<Holder> {
        self.users(path).map(|it| it.holder.clone()).collect()
    }

    fn users(&self, path: &Path) -> impl Iterator<Item = &Use> {
        let users = id(path).and_then(|id| self.0.get(&id));
        users.into_iter().flat_map(BTreeMap::values)
    }
}

fn id(path: &Path) -> Option<DirectoryId> {
    let data = fs::symlink_metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}
