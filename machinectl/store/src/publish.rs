//! Putting what is finished in place, in an order that a power cut cannot break.

use std::path::Path;

use config::layout::Entry;
use config::task::{BOOTSTRAP, Provenance};
use config::{MachineName, Revision};

use crate::error::IoContext;
use crate::subvolumes::NotSubvolume;
use crate::{Change, MachineRefusal, Result, Snapshot, Volume};

impl Volume {
    /// Makes a snapshot, in which a bootstrap has ended well, the machine's image
    /// for its toolchain. The old image serves until the instant when the new one
    /// takes its place; builds that run have snapshots of their own.
    ///
    /// Killed at any point, this leaves the old or the new image in place and at
    /// most a snapshot that nobody uses.
    ///
    /// # Errors
    /// When the machine is gone or locked for too long. The snapshot is then no
    /// longer used by us; drop it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a published snapshot is none"
    )]
    pub fn publish_image(&self, snapshot: Snapshot, provenance: &Provenance) -> Result<()> {
        let Snapshot {
            machine, toolchain, ..
        } = &snapshot;
        let _lock = self.lock(machine)?;
        self.look(machine)?.need_current()?;
        let image = self.entry(machine, &Entry::Image(toolchain.clone()));
        let path = snapshot.path();
        let manifest = path.join(BOOTSTRAP);
        let backend = &self.backend;

        backend
            .write(&manifest, provenance.print().as_bytes())
            .context("write", &manifest)?;
        backend.seal(path).context("make read-only", path)?;
        self.commit()?;
        if self.is_subvolume(&image)? {
            backend
                .exchange(path, &image)
                .context("put in place", &image)?;
            self.commit()?;
            backend.delete(path).context("delete the old image", path)?;
        } else {
            backend
                .rename(path, &image)
                .context("put in place", &image)?;
            self.commit()?;
        }
        Ok(())
    }

    /// Whether a name is a subvolume or free; anything else is in the way.
    fn is_subvolume(&self, path: &Path) -> Result<bool> {
        let there = self.backend.info(path).context("look at", path)?.is_some();
        if !there && path.symlink_metadata().is_ok() {
            return Err(NotSubvolume(path.to_owned()).into());
        }
        Ok(there)
    }

    /// Makes a complete revision the current one, also an older one.
    ///
    /// # Errors
    /// When the machine is not there or on its way out, or the revision is not
    /// there or not complete.
    pub fn set_current(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        if view.deleting {
            return Err(MachineRefusal::Deleting(machine.clone()).into());
        }
        if !view.revision(revision).is_some_and(|view| view.complete) {
            return Err(MachineRefusal::NoRevision(machine.clone(), revision).into());
        }
        if view.current == Some(revision) {
            return Ok(Change::Unchanged);
        }
        self.publish_revision(machine, revision)?;
        Ok(Change::Changed)
    }

    /// Makes a complete revision the current one. The caller holds the lock.
    pub(crate) fn publish_revision(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        let incoming = self.entry(machine, &Entry::Incoming);
        let current = self.entry(machine, &Entry::Current);
        let target = Entry::Revision(revision).name(machine);
        // First the content, then the link to it, then the answer.
        self.commit()?;
        let arriving = self.entry(machine, &Entry::Arriving(revision));
        self.backend
            .unlink(&arriving)
            .context("remove", &arriving)?;
        self.backend
            .unlink(&incoming)
            .context("remove", &incoming)?;
        self.backend
            .link(Path::new(&target), &incoming)
            .context("make the link", &incoming)?;
        self.backend
            .rename(&incoming, &current)
            .context("put in place", &current)?;
        self.commit()
    }
}
