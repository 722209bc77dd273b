//! Snapshots: writable clones for one build or one bootstrap, and their locks.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use config::layout::Entry;
use config::{MachineName, Revision, Tag, ToolchainName};

use crate::{
    Change, LockRefusal, MachineRefusal, MachineView, Refusal, RefusalKind, Result, Uuid, Volume,
    lock,
};
use btrfs::error::IoContext;
use btrfs::subvolumes::NotSubvolume;

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

/// The source of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSource {
    /// The current revision.
    Current,
    /// The revision on trial, if it is this one.
    Candidate(Revision),
    /// The image bootstrapped for a toolchain.
    Image(ToolchainName),
    /// The image for a toolchain of the revision on trial, if it is this one.
    TrialImage(Revision, ToolchainName),
    /// Another snapshot of the same toolchain. A guest may run in it; the copy then has the
    /// state that a power failure at this instant would leave.
    Snapshot(Tag),
}

/// The revision that a snapshot was taken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRevision {
    /// The number.
    pub revision: Revision,
    /// The subvolume's UUID, for the provenance of the image that is made from the snapshot.
    pub uuid: Uuid,
}

/// A snapshot with a shared lock on its directory, which marks it as in use.
///
/// Dropping the value releases the lock, unless another process shares it. The snapshot
/// itself stays until [`Volume::delete_snapshot`].
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) machine: MachineName,
    pub(crate) toolchain: ToolchainName,
    pub(crate) tag: Tag,
    path: PathBuf,
    lock: File,
    source_uuid: Option<Uuid>,
    source_revision: Option<SourceRevision>,
}

impl Snapshot {
    /// Returns the snapshot's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the machine.
    pub fn machine(&self) -> &MachineName {
        &self.machine
    }

    /// Returns the toolchain.
    pub fn toolchain(&self) -> &ToolchainName {
        &self.toolchain
    }

    /// Returns the tag, which is the last part of the name.
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Returns the UUID of the source of a snapshot that [`Volume::snapshot`] took of a
    /// revision or an image.
    pub fn source_uuid(&self) -> Option<Uuid> {
        self.source_uuid
    }

    /// Returns the source of a snapshot that [`Volume::snapshot`] took of a revision.
    pub fn source_revision(&self) -> Option<SourceRevision> {
        self.source_revision
    }

    /// Returns another descriptor of the lock, which is closed on `exec` by default.
    ///
    /// The snapshot is in use as long as a process has the descriptor. A guest inherits it,
    /// so that its snapshot stays locked when the agent restarts.
    ///
    /// # Errors
    /// The process has too many open files.
    pub fn share_lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }
}

/// The subvolume to take a snapshot of.
struct ResolvedSource {
    path: PathBuf,
    uuid: Option<Uuid>,
    revision: Option<SourceRevision>,
}

impl Volume {
    /// Takes a writable snapshot and locks it.
    ///
    /// # Errors
    /// The source does not exist or is not complete, the name is taken, or the machine stays
    /// locked.
    pub fn snapshot(
        &self,
        machine: &MachineName,
        source: &SnapshotSource,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Snapshot> {
        let _lock = self.lock(machine)?;
        let source = self.resolve_source(&self.view(machine)?, source, toolchain)?;
        let path = self.entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()));
        if path.symlink_metadata().is_ok() {
            return Err(SnapshotRefusal::Exists(path).into());
        }
        self.backend
            .snapshot(&source.path, &path)
            .context("take the snapshot", &path)?;
        Ok(Snapshot {
            machine: machine.clone(),
            toolchain: toolchain.clone(),
            tag: tag.clone(),
            lock: self.lock_shared(&path)?,
            path,
            source_uuid: source.uuid,
            source_revision: source.revision,
        })
    }

    fn resolve_source(
        &self,
        view: &MachineView,
        source: &SnapshotSource,
        toolchain: &ToolchainName,
    ) -> Result<ResolvedSource> {
        let current = view.require_current()?;
        let machine = &view.name;
        match source {
            SnapshotSource::Current => {
                let (revision, uuid) = (current.revision, current.uuid);
                Ok(ResolvedSource {
                    path: self.entry(machine, &Entry::Revision(revision)),
                    uuid: Some(uuid),
                    revision: Some(SourceRevision { revision, uuid }),
                })
            }
            SnapshotSource::Candidate(wanted) => {
                let candidate = view.require_candidate(*wanted)?;
                let (revision, uuid) = (candidate.revision, candidate.uuid);
                Ok(ResolvedSource {
                    path: self.entry(machine, &Entry::Revision(revision)),
                    uuid: Some(uuid),
                    revision: Some(SourceRevision { revision, uuid }),
                })
            }
            SnapshotSource::TrialImage(candidate, wanted) => {
                view.require_candidate(*candidate)?;
                let image = view.trial_image(wanted).filter(|it| it.complete);
                let refusal = || SnapshotRefusal::NoImage(machine.clone(), wanted.clone());
                let image = image.ok_or_else(refusal)?;
                let entry = Entry::TrialImage(*candidate, wanted.clone());
                Ok(ResolvedSource {
                    path: self.entry(machine, &entry),
                    uuid: Some(image.uuid),
                    revision: None,
                })
            }
            SnapshotSource::Image(wanted) => match view.image(wanted) {
                Some(image) if image.complete => Ok(ResolvedSource {
                    path: self.entry(machine, &Entry::Image(wanted.clone())),
                    uuid: Some(image.uuid),
                    revision: None,
                }),
                _ => Err(SnapshotRefusal::NoImage(machine.clone(), wanted.clone()).into()),
            },
            SnapshotSource::Snapshot(tag) => {
                let entry = Entry::Snapshot(toolchain.clone(), tag.clone());
                Ok(ResolvedSource {
                    path: self.existing_snapshot(machine, &entry)?,
                    uuid: None,
                    revision: None,
                })
            }
        }
    }

    /// Returns the path of a snapshot.
    fn existing_snapshot(&self, machine: &MachineName, entry: &Entry) -> Result<PathBuf> {
        let path = self.entry(machine, entry);
        match self.backend.info(&path).context("inspect", &path)? {
            Some(_) => Ok(path),
            None => Err(SnapshotRefusal::NotFound(path).into()),
        }
    }

    /// Returns true if a snapshot exists.
    pub fn has_snapshot(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<bool> {
        let path = self.entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()));
        let found = self.backend.info(&path).context("inspect", &path)?;
        Ok(found.is_some())
    }

    /// Locks an existing snapshot. An agent adopts the snapshots of guests that survived its
    /// predecessor in this way.
    ///
    /// # Errors
    /// The snapshot does not exist.
    pub fn adopt_snapshot(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Snapshot> {
        let _lock = self.lock(machine)?;
        let entry = Entry::Snapshot(toolchain.clone(), tag.clone());
        let path = self.existing_snapshot(machine, &entry)?;
        Ok(Snapshot {
            machine: machine.clone(),
            toolchain: toolchain.clone(),
            tag: tag.clone(),
            lock: self.lock_shared(&path)?,
            path,
            source_uuid: None,
            source_revision: None,
        })
    }

    /// Prevents the deletion of a complete revision as long as the result lives.
    pub(crate) fn lock_revision(&self, machine: &MachineName, revision: Revision) -> Result<File> {
        let path = self.entry(machine, &Entry::Revision(revision));
        let lock = self.lock_shared(&path)?;
        // Another process may have deleted it before the lock was acquired.
        match self.backend.info(&path).context("inspect", &path)? {
            Some(subvolume) if subvolume.read_only => Ok(lock),
            _ => Err(MachineRefusal::NoRevision(machine.clone(), revision).into()),
        }
    }

    /// Gives a snapshot another tag. It may be in use.
    ///
    /// # Errors
    /// The name is taken, or the machine stays locked.
    pub fn rename_snapshot(&self, snapshot: Snapshot, tag: &Tag) -> Result<Snapshot> {
        let _lock = self.lock(&snapshot.machine)?;
        let entry = Entry::Snapshot(snapshot.toolchain.clone(), tag.clone());
        let path = self.entry(&snapshot.machine, &entry);
        if path.symlink_metadata().is_ok() {
            return Err(SnapshotRefusal::Exists(path).into());
        }
        self.backend
            .rename(&snapshot.path, &path)
            .context("rename", &snapshot.path)?;
        Ok(Snapshot {
            tag: tag.clone(),
            path,
            ..snapshot
        })
    }

    pub(crate) fn lock_shared(&self, path: &Path) -> Result<File> {
        let file = lock::open_directory(path).context("open", path)?;
        let deadline = Instant::now() + self.lock_timeout;
        let locked = lock::retry_until(deadline, || lock::acquired(file.try_lock_shared()));
        if locked.context("lock", path)? {
            return Ok(file);
        }
        Err(LockRefusal::in_use(path).into())
    }

    /// Deletes a snapshot after waiting for the processes that use it. A caller with a
    /// [`Snapshot`] of it drops that before.
    ///
    /// A power failure before the next commit may restore the snapshot, which the clean-up
    /// after a boot deletes.
    ///
    /// # Errors
    /// The snapshot is still in use at the lock timeout.
    pub fn delete_snapshot(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Change> {
        self.delete_entry(machine, &Entry::Snapshot(toolchain.clone(), tag.clone()))
    }

    /// Deletes a bootstrapped image. Snapshots of it stay.
    ///
    /// # Errors
    /// The machine stays locked.
    pub fn delete_image(&self, machine: &MachineName, toolchain: &ToolchainName) -> Result<Change> {
        let change = self.delete_entry(machine, &Entry::Image(toolchain.clone()))?;
        self.commit()?;
        Ok(change)
    }

    /// Deletes the image of a revision that was made for its trial, unless the trial needs it.
    ///
    /// # Errors
    /// The machine stays locked.
    pub fn delete_trial_image(
        &self,
        machine: &MachineName,
        revision: Revision,
        toolchain: &ToolchainName,
    ) -> Result<Change> {
        let view = self.view(machine)?;
        let mut obsolete = view.obsolete_trial_images();
        if !obsolete.any(|(it, image)| it == revision && image.toolchain == *toolchain) {
            return Ok(Change::Unchanged);
        }
        let entry = Entry::TrialImage(revision, toolchain.clone());
        let change = self.delete_entry(machine, &entry)?;
        self.commit()?;
        Ok(change)
    }

    /// Deletes a subvolume as soon as it is unused. The machine is not locked during the wait.
    fn delete_entry(&self, machine: &MachineName, entry: &Entry) -> Result<Change> {
        let path = self.entry(machine, entry);
        let deadline = Instant::now() + self.lock_timeout;
        loop {
            if let Some(change) = self.delete_if_unused(machine, &path)? {
                return Ok(change);
            }
            if Instant::now() >= deadline {
                return Err(LockRefusal::in_use(&path).into());
            }
            std::thread::sleep(lock::RETRY_INTERVAL);
        }
    }

    /// Deletes a subvolume. Returns `None` if a process uses it.
    fn delete_if_unused(&self, machine: &MachineName, path: &Path) -> Result<Option<Change>> {
        if path.symlink_metadata().is_err() {
            return Ok(Some(Change::Unchanged));
        }
        let _lock = self.lock(machine)?;
        let unused = match lock::lock_unused(path) {
            Ok(unused) => unused,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Change::Unchanged));
            }
            Err(error) => return Err(error).context("open", path),
        };
        let Some(_unused) = unused else {
            return Ok(None);
        };
        if self.backend.info(path).context("inspect", path)?.is_none() {
            return Err(NotSubvolume(path.to_owned()).into());
        }
        self.backend.delete(path).context("delete", path).map(Some)
    }
}
