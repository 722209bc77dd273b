//! The deletion of a machine on a running host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::MachineName;
use config::layout::Entry;

use crate::clean::{Step, plan_deletion};
use crate::{
    IngestState, LockRefusal, MachineRefusal, MachineView, Result, StoreError, Volume, lock,
};
use btrfs::error::IoContext;

/// The result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteReport {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The names of unmanaged entries, which stay in the directory.
    pub unmanaged: Vec<String>,
}

impl Volume {
    /// Takes a machine out of service, waits until no process uses it, and deletes it.
    ///
    /// One rename takes it out of service and records the intent. After a crash,
    /// [`Volume::finish_deletions`] or the next call continues. While a revision is being
    /// created, the machine stays in service. With `force`, pinned revisions are deleted, and
    /// snapshots while they are in use.
    ///
    /// # Errors
    /// The machine does not exist or has pinned revisions, a revision of it is still being created at the timeout, or it
    /// is still in use then. A machine in use stays out of service and is deleted later.
    pub fn delete(
        &self,
        machine: &MachineName,
        timeout: Duration,
        force: bool,
    ) -> Result<DeleteReport> {
        let deadline = Instant::now() + timeout;
        while !self.take_out_of_service(machine, force)? {
            if Instant::now() >= deadline {
                return Err(self.ingesting(machine).into());
            }
            std::thread::sleep(lock::RETRY_INTERVAL);
        }
        loop {
            if let Some(report) = self.try_delete(machine, force)? {
                return Ok(report);
            }
            if Instant::now() >= deadline {
                return Err(self.still_in_use(machine));
            }
            std::thread::sleep(lock::RETRY_INTERVAL);
        }
    }

    /// Takes a machine out of service. Returns false, and changes nothing, while a revision of
    /// it is being created.
    fn take_out_of_service(&self, machine: &MachineName, force: bool) -> Result<bool> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        check_delete(&view, force)?;
        if view.ingest == IngestState::Running {
            return Ok(false);
        }
        self.refuse_default(&self.subvolumes(&view))?;
        let current = self.entry(machine, &Entry::Current);
        let deleting = self.entry(machine, &Entry::Deleting);
        if view.has_link() {
            let renamed = self.backend.rename(&current, &deleting);
            match renamed.context("take out of service", &current) {
                // On a full disk a new name may fail where a removal succeeds, which often
                // makes room for the mark.
                Err(error) if error.is_full() => {
                    self.backend
                        .unlink(&current)
                        .context("take out of service", &current)?;
                    self.commit()?;
                    self.mark_deleting(&deleting, machine)?;
                }
                renamed => renamed?,
            }
        } else if !view.deleting {
            // Without a link, an ingest or a deletion was interrupted. Its managed entries may
            // be deleted, but not a directory without any.
            if has_nothing_to_delete(&view) {
                return Err(MachineRefusal::NotFound(machine.clone()).into());
            }
            self.mark_deleting(&deleting, machine)?;
        }
        self.commit()?;
        Ok(true)
    }

    /// Returns the paths of the subvolumes that a deletion of the machine would delete.
    fn subvolumes(&self, view: &MachineView) -> Vec<PathBuf> {
        let steps = plan_delete(view, true).into_iter();
        let deleted = steps.filter_map(|step| match step {
            Step::Delete(entry) => Some(self.entry(&view.name, &entry)),
            _ => None,
        });
        deleted.collect()
    }

    /// Marks a machine that is out of service as being deleted. If the disk has no room for the
    /// mark, the deletion continues without it; after a crash, the next call or the next boot
    /// finishes it.
    fn mark_deleting(&self, deleting: &Path, machine: &MachineName) -> Result<()> {
        let target = Entry::Current.name(machine);
        let marked = self.backend.symlink(target.as_ref(), deleting);
        match marked.context("create the link", deleting) {
            Err(error) if error.is_full() => Ok(()),
            marked => marked,
        }
    }

    /// Deletes the machine. Returns `None` if a process uses it, unless `force` is set.
    fn try_delete(&self, machine: &MachineName, force: bool) -> Result<Option<DeleteReport>> {
        let _lock = self.lock(machine)?;
        let mut view = self.view(machine)?;
        view.deleting |= !view.has_link();
        if force {
            ignore_uses(&mut view);
        }
        if view.is_in_use() {
            return Ok(None);
        }
        let steps = plan_deletion(&view);
        for step in &steps {
            match step {
                Step::Delete(entry) if force => {
                    self.delete_subvolume(&self.entry(machine, entry))?;
                }
                step => self.execute(machine, step)?,
            }
        }
        self.commit()?;
        Ok(Some(DeleteReport {
            steps,
            unmanaged: view.unmanaged,
        }))
    }

    /// Returns the error that names a used entry and its users.
    fn still_in_use(&self, machine: &MachineName) -> StoreError {
        let view = match self.view(machine) {
            Ok(view) => view,
            Err(error) => return error,
        };
        let snapshot = view
            .snapshots
            .into_iter()
            .find(|snapshot| snapshot.in_use)
            .map(|snapshot| Entry::Snapshot(snapshot.toolchain, snapshot.tag));
        let revision = view.revisions_in_use.first().copied().map(Entry::Revision);
        let path = match snapshot.or(revision) {
            Some(entry) => self.entry(machine, &entry),
            None => self.directory(machine),
        };
        LockRefusal::in_use(&path).into()
    }
}

/// Checks that a machine may be deleted. A deletion that has begun may always continue.
///
/// # Errors
/// The machine has pinned revisions, and `force` is not set.
pub fn check_delete(view: &MachineView, force: bool) -> Result<()> {
    let has_begun = view.deleting && !view.has_link();
    let pins = view.pins.iter().copied();
    let revisions: Vec<_> = pins.filter(|pin| view.revision(*pin).is_some()).collect();
    if force || has_begun || revisions.is_empty() {
        return Ok(());
    }
    let machine = view.name.clone();
    Err(MachineRefusal::Pinned { machine, revisions }.into())
}

/// Returns the steps that [`Volume::delete`] would execute.
pub fn plan_delete(view: &MachineView, force: bool) -> Vec<Step> {
    let mut view = MachineView {
        deleting: true,
        current: None,
        link_fault: None,
        ..view.clone()
    };
    if force {
        ignore_uses(&mut view);
    }
    plan_deletion(&view)
}

fn ignore_uses(view: &mut MachineView) {
    view.revisions_in_use.clear();
    for snapshot in &mut view.snapshots {
        snapshot.in_use = false;
    }
}

/// Returns true if a directory without a link has no managed entries.
fn has_nothing_to_delete(view: &MachineView) -> bool {
    plan_delete(view, true).iter().all(Step::is_final)
}
