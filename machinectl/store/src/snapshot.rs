//! Snapshots: writable clones for one build or one bootstrap, and who uses them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::layout::Entry;
use config::{MachineName, Revision, Tag, ToolchainName};

use crate::error::IoContext;
use crate::subvolumes::Change;
use crate::subvolumes::NotSubvolume;
use crate::{LockRefusal, MachineRefusal, Refusal, RefusalKind, Result, Uuid, Volume, lock};

/// A reason not to take or use a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRefusal {
    /// The bootstrap for this toolchain has not ended.
    #[error("machine `{0}` has no bootstrapped image for toolchain `{1}` yet")]
    NoImage(MachineName, ToolchainName),
    /// There is no such snapshot.
    #[error("there is no snapshot `{}`", .0.display())]
    NotFound(PathBuf),
    /// The name is taken.
    #[error("`{}` already exists", .0.display())]
    Exists(PathBuf),
}

impl Refusal for SnapshotRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NoImage(..) | Self::NotFound(_) => RefusalKind::NotFound,
            Self::Exists(_) => RefusalKind::Exists,
        }
    }
}

/// What a snapshot is taken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The current revision.
    Current,
    /// The image bootstrapped for a toolchain.
    Image(ToolchainName),
    /// Another snapshot of the same toolchain, as it is at that instant: a guest may
    /// run in it, and finds in the copy what it would find after a power cut.
    Snapshot(Tag),
}

/// The revision that a snapshot was taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub revision: Revision,
    /// Its identity, for the manifest of the image that is made from it.
    pub uuid: Uuid,
}

/// A snapshot that we use: a lock on its directory says so to everybody. Dropping
/// this gives the lock up, unless somebody else holds it too; the snapshot stays
/// until [`Volume::drop_snapshot`].
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) machine: MachineName,
    pub(crate) toolchain: ToolchainName,
    pub(crate) tag: Tag,
    path: PathBuf,
    lock: File,
    source: Option<Uuid>,
    taken: Option<Taken>,
}

impl Snapshot {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its machine.
    pub fn machine(&self) -> &MachineName {
        &self.machine
    }

    /// The toolchain in its name.
    pub fn toolchain(&self) -> &ToolchainName {
        &self.toolchain
    }

    /// The rest of its name.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The subvolume that it was taken of, if this process took it of a revision or of an
    /// image.
    pub fn source(&self) -> Option<Uuid> {
        self.source
    }

    /// The revision that it was taken of, when it was taken of one just now.
    pub fn taken(&self) -> Option<Taken> {
        self.taken
    }

    /// Another descriptor of the same lock. As long as a process has it, the
    /// snapshot is in use; a guest inherits it and so outlives an agent. It is
    /// closed on `exec` unless the caller changes that.
    ///
    /// # Errors
    /// When there are too many open files.
    pub fn keep(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }
}

impl Volume {
    /// Takes a writable snapshot and marks it as used by us.
    ///
    /// # Errors
    /// When the machine or the image is not there, not complete, or locked for too
    /// long; when the name is taken.
    pub fn snapshot(
        &self,
        machine: &MachineName,
        origin: &Origin,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Snapshot> {
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        let current = view.need_current()?;
        let (source, uuid, taken) = match origin {
            Origin::Current => {
                let (revision, uuid) = (current.revision, current.uuid);
                (
                    Entry::Revision(revision),
                    Some(uuid),
                    Some(Taken { revision, uuid }),
                )
            }
            Origin::Image(wanted) => match view.image(wanted) {
                Some(image) if image.complete => {
                    (Entry::Image(wanted.clone()), Some(image.uuid), None)
                }
                _ => return Err(SnapshotRefusal::NoImage(machine.clone(), wanted.clone()).into()),
            },
            Origin::Snapshot(tag) => (Entry::Snapshot(toolchain.clone(), tag.clone()), None, None),
        };
        let is_snapshot = matches!(source, Entry::Snapshot(..));
        let source = self.entry(machine, &source);
        if is_snapshot
            && self
                .backend
                .info(&source)
                .context("look at", &source)?
                .is_none()
        {
            return Err(SnapshotRefusal::NotFound(source).into());
        }
        let path = self.entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()));
        if path.symlink_metadata().is_ok() {
            return Err(SnapshotRefusal::Exists(path).into());
        }
        self.backend
            .snapshot(&source, &path)
            .context("take the snapshot", &path)?;
        let lock = self.hold(&path)?;
        Ok(Snapshot {
            machine: machine.clone(),
            toolchain: toolchain.clone(),
            tag: tag.clone(),
            path,
            lock,
            source: uuid,
            taken,
        })
    }

    /// Marks a snapshot that is there as used by us: what an agent does with the
    /// guests that outlived its predecessor.
    ///
    /// # Errors
    /// When it is not there.
    pub fn take_up(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Snapshot> {
        let _lock = self.lock(machine)?;
        let path = self.entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()));
        if self
            .backend
            .info(&path)
            .context("look at", &path)?
            .is_none()
        {
            return Err(SnapshotRefusal::NotFound(path).into());
        }
        let lock = self.hold(&path)?;
        Ok(Snapshot {
            machine: machine.clone(),
            toolchain: toolchain.clone(),
            tag: tag.clone(),
            path,
            lock,
            source: None,
            taken: None,
        })
    }

    /// Keeps a complete revision from being deleted as long as the result lives.
    pub(crate) fn hold_revision(&self, machine: &MachineName, revision: Revision) -> Result<File> {
        let path = self.entry(machine, &Entry::Revision(revision));
        let held = self.hold(&path)?;
        // Somebody may have deleted it before we held it.
        match self.backend.info(&path).context("look at", &path)? {
            Some(there) if there.read_only => Ok(held),
            _ => Err(MachineRefusal::NoRevision(machine.clone(), revision).into()),
        }
    }

    fn hold(&self, path: &Path) -> Result<File> {
        let file = lock::open_directory(path).context("open", path)?;
        let deadline = Instant::now() + self.patience;
        let taken = lock::until(deadline, || lock::attempt(file.try_lock_shared()));
        if taken.context("lock", path)? {
            return Ok(file);
        }
        Err(LockRefusal::in_use(path).into())
    }

    /// Deletes a snapshot. Waits for whoever still uses it; a caller who has a
    /// [`Snapshot`] of it drops that first. A power cut may bring it back until
    /// the next commit; the clean-up after it knows what to do.
    ///
    /// # Errors
    /// When it is still in use after our patience is over.
    pub fn drop_snapshot(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Change> {
        self.drop_entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()))
    }

    /// Deletes a bootstrapped image. Snapshots of it are not touched by that.
    ///
    /// # Errors
    /// When the machine is locked for too long.
    pub fn drop_image(&self, machine: &MachineName, toolchain: &ToolchainName) -> Result<Change> {
        let change = self.drop_entry(machine, &Entry::Image(toolchain.clone()))?;
        self.commit()?;
        Ok(change)
    }

    /// Deletes a subvolume that nobody uses. The machine's lock is free while we
    /// wait for that.
    fn drop_entry(&self, machine: &MachineName, entry: &Entry) -> Result<Change> {
        let path = self.entry(machine, entry);
        let deadline = Instant::now() + self.patience;
        loop {
            if let Some(change) = self.drop_unused(machine, &path)? {
                return Ok(change);
            }
            let over = Instant::now() >= deadline;
            if over {
                return Err(LockRefusal::in_use(&path).into());
            }
            std::thread::sleep(lock::PAUSE);
        }
    }

    /// Deletes a subvolume if nobody uses it now; `None` when somebody does.
    fn drop_unused(&self, machine: &MachineName, path: &Path) -> Result<Option<Change>> {
        if path.symlink_metadata().is_err() {
            return Ok(Some(Change::Unchanged));
        }
        let _lock = self.lock(machine)?;
        let unused = match lock::unused(path) {
            Ok(unused) => unused,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Change::Unchanged));
            }
            Err(error) => return Err(error).context("open", path),
        };
        let Some(_unused) = unused else {
            return Ok(None);
        };
        if self.backend.info(path).context("look at", path)?.is_none() {
            return Err(NotSubvolume(path.to_owned()).into());
        }
        self.backend.delete(path).context("delete", path).map(Some)
    }
}
