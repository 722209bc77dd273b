//! Publication of finished images and revisions, in an order that survives a power failure.

use std::path::Path;

use config::layout::Entry;
use config::task::{BOOTSTRAP, Provenance};
use config::{MachineName, Revision};

use crate::{Result, Snapshot, Volume};
use btrfs::error::IoContext;
use btrfs::subvolumes::NotSubvolume;

impl Volume {
    /// Turns the snapshot of a successful bootstrap into the machine's image for its
    /// toolchain. The old image serves until the new one replaces it in one step; running
    /// builds keep their snapshots.
    ///
    /// A crash leaves the old or the new image in place, and at most one unused snapshot.
    ///
    /// # Errors
    /// The machine was deleted or stays locked. The snapshot is then unlocked and should be
    /// deleted.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the snapshot does not exist afterward"
    )]
    pub fn publish_image(&self, snapshot: Snapshot, provenance: &Provenance) -> Result<()> {
        let Snapshot {
            machine, toolchain, ..
        } = &snapshot;
        let _lock = self.lock(machine)?;
        self.view(machine)?.require_current()?;
        let image = self.entry(machine, &Entry::Image(toolchain.clone()));
        self.finish_image(snapshot.path(), provenance)?;
        self.replace_image(snapshot.path(), &image)
    }

    /// Turns the snapshot of a successful bootstrap into the image of a revision on trial. It
    /// becomes the machine's image when the revision is promoted.
    ///
    /// # Errors
    /// Those of [`Volume::publish_image`], and the revision is not on trial any more.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the snapshot does not exist afterward"
    )]
    pub fn publish_trial_image(
        &self,
        snapshot: Snapshot,
        revision: Revision,
        provenance: &Provenance,
    ) -> Result<()> {
        let Snapshot {
            machine, toolchain, ..
        } = &snapshot;
        let _lock = self.lock(machine)?;
        self.view(machine)?.require_candidate(revision)?;
        let image = Entry::TrialImage(revision, toolchain.clone());
        self.finish_image(snapshot.path(), provenance)?;
        self.replace_image(snapshot.path(), &self.entry(machine, &image))
    }

    /// Writes the sources of an image into it and makes it read-only.
    fn finish_image(&self, path: &Path, provenance: &Provenance) -> Result<()> {
        let manifest = path.join(BOOTSTRAP);
        self.backend
            .write(&manifest, provenance.print().as_bytes())
            .context("write", &manifest)?;
        self.backend
            .make_read_only(path)
            .context("make read-only", path)?;
        self.commit()
    }

    /// Gives a finished image its name, in place of an older one. The caller holds the lock.
    pub(crate) fn replace_image(&self, path: &Path, image: &Path) -> Result<()> {
        let backend = &self.backend;
        if self.is_replaceable_subvolume(image)? {
            backend.exchange(path, image).context("publish", image)?;
            self.commit()?;
            backend.delete(path).context("delete the old image", path)?;
        } else {
            backend.rename(path, image).context("publish", image)?;
            self.commit()?;
        }
        Ok(())
    }

    /// Returns true if a path is a subvolume and false if it does not exist.
    ///
    /// # Errors
    /// The path is anything else, which must not be replaced.
    fn is_replaceable_subvolume(&self, path: &Path) -> Result<bool> {
        let exists = self.backend.info(path).context("inspect", path)?.is_some();
        if !exists && path.symlink_metadata().is_ok() {
            return Err(NotSubvolume(path.to_owned()).into());
        }
        Ok(exists)
    }

    /// Makes a complete revision the current one. The caller holds the lock.
    pub(crate) fn publish_revision(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        self.link_revision(machine, revision)?;
        self.commit()
    }

    /// Links to a complete revision as the current one. The caller holds the lock, and commits.
    pub(crate) fn link_revision(&self, machine: &MachineName, revision: Revision) -> Result<()> {
        let incoming = self.entry(machine, &Entry::Incoming);
        let current = self.entry(machine, &Entry::Current);
        let target = Entry::Revision(revision).name(machine);
        // The content must be on the disk before the link to it, and the link before the
        // answer.
        self.commit()?;
        let arriving = self.entry(machine, &Entry::Arriving(revision));
        self.backend
            .unlink(&arriving)
            .context("remove", &arriving)?;
        self.backend
            .unlink(&incoming)
            .context("remove", &incoming)?;
        self.backend
            .symlink(Path::new(&target), &incoming)
            .context("create the link", &incoming)?;
        self.backend
            .rename(&incoming, &current)
            .context("publish", &current)?;
        Ok(())
    }
}
