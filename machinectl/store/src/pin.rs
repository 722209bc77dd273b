//! Pins: links that prevent the pruning of a revision.

use std::path::Path;

use config::layout::Entry;
use config::{MachineName, Revision};

use crate::{Change, Result, Volume};
use btrfs::error::IoContext;

impl Volume {
    /// Prevents the pruning of a complete revision.
    ///
    /// # Errors
    /// The revision does not exist or is not complete.
    pub fn pin(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        view.require_complete(revision)?;
        if view.pins.contains(&revision) {
            return Ok(Change::Unchanged);
        }
        let pin = self.entry(machine, &Entry::Pin(revision));
        let target = Entry::Revision(revision).name(machine);
        self.backend
            .symlink(Path::new(&target), &pin)
            .context("create the link", &pin)?;
        self.commit()?;
        Ok(Change::Changed)
    }

    /// Allows the pruning of a revision again.
    ///
    /// # Errors
    /// The machine does not exist or stays locked.
    pub fn unpin(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let pin = self.entry(machine, &Entry::Pin(revision));
        let change = self.backend.unlink(&pin).context("remove", &pin)?;
        self.commit()?;
        Ok(change)
    }
}
