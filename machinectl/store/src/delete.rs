//! Deleting a machine on a live host.

use std::path::Path;
use std::time::{Duration, Instant};

use config::MachineName;
use config::layout::Entry;

use crate::clean::{Step, plan_deletion};
use crate::error::IoContext;
use crate::{LockRefusal, MachineRefusal, MachineView, Result, Volume, lock};

/// How a deletion ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// What went, in order.
    pub steps: Vec<Step>,
    /// What is left in the directory because it is not ours.
    pub strangers: Vec<String>,
}

impl Volume {
    /// Takes a machine out of service, waits until nobody uses it, and deletes it.
    ///
    /// One rename takes it out of service and records the intent: killed at any
    /// point after that, [`Volume::finish_deletions`] or the next call goes on.
    /// With `force`, snapshots go even while they are used.
    ///
    /// # Errors
    /// When there is no such machine, or when it is still in use after `timeout`;
    /// it stays out of service then and is deleted later.
    pub fn delete(
        &self,
        machine: &MachineName,
        timeout: Duration,
        force: bool,
    ) -> Result<Deletion> {
        let deadline = Instant::now() + timeout;
        self.take_out_of_service(machine)?;
        loop {
            if let Some(deletion) = self.try_delete(machine, force)? {
                return Ok(deletion);
            }
            if Instant::now() >= deadline {
                return Err(self.still_used(machine));
            }
            std::thread::sleep(lock::PAUSE);
        }
    }

    fn take_out_of_service(&self, machine: &MachineName) -> Result<()> {
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        let current = self.entry(machine, &Entry::Current);
        let deleting = self.entry(machine, &Entry::Deleting);
        if view.has_link() {
            let renamed = self.backend.rename(&current, &deleting);
            match renamed.context("take out of service", &current) {
                // With not a byte left for a new name, the old one can still go, and
                // often makes room for the mark.
                Err(error) if error.is_full() => {
                    self.backend
                        .unlink(&current)
                        .context("take out of service", &current)?;
                    self.commit()?;
                    self.mark(&deleting, machine)?;
                }
                renamed => renamed?,
            }
        } else if !view.deleting {
            // Without any link it may be half made or half gone; what is left of
            // it is ours to delete, an empty directory is not.
            if is_nothing(&view) {
                return Err(MachineRefusal::NotFound(machine.clone()).into());
            }
            self.mark(&deleting, machine)?;
        }
        self.commit()
    }

    /// Marks a machine that is out of service as one that is being deleted. Where the
    /// mark has no room, whoever deletes it is alone in knowing of it: killed now, it
    /// is for the next call, or the next boot, to go on.
    fn mark(&self, deleting: &Path, machine: &MachineName) -> Result<()> {
        let target = Entry::Current.name(machine);
        let marked = self.backend.link(target.as_ref(), deleting);
        match marked.context("make the link", deleting) {
            Err(error) if error.is_full() => Ok(()),
            marked => marked,
        }
    }

    /// Deletes the machine if nobody uses it or if that does not matter.
    fn try_delete(&self, machine: &MachineName, force: bool) -> Result<Option<Deletion>> {
        let _lock = self.lock(machine)?;
        let mut view = self.look(machine)?;
        view.deleting |= !view.has_link();
        if force {
            forget_uses(&mut view);
        }
        if view.is_used() {
            return Ok(None);
        }
        let steps = plan_deletion(&view);
        for step in &steps {
            match step {
                Step::Delete(entry) if force => {
                    let path = self.entry(machine, entry);
                    self.delete_subvolume(&path)?;
                }
                step => self.act(machine, step)?,
            }
        }
        self.commit()?;
        let strangers = view.strangers;
        Ok(Some(Deletion { steps, strangers }))
    }

    fn still_used(&self, machine: &MachineName) -> crate::StoreError {
        let view = match self.look(machine) {
            Ok(view) => view,
            Err(error) => return error,
        };
        let used = view.snapshots.into_iter().find(|snapshot| snapshot.in_use);
        let used = used.map(|used| Entry::Snapshot(used.toolchain, used.tag));
        let read = view.held.first().map(|held| Entry::Revision(*held));
        let path = match used.or(read) {
            Some(entry) => self.entry(machine, &entry),
            None => self.directory(machine),
        };
        LockRefusal::in_use(&path).into()
    }
}

/// What [`Volume::delete`] would do with a machine as it is now.
pub fn delete_plan(view: &MachineView, force: bool) -> Vec<Step> {
    let mut view = MachineView {
        deleting: true,
        current: None,
        link_fault: None,
        ..view.clone()
    };
    if force {
        forget_uses(&mut view);
    }
    plan_deletion(&view)
}

fn forget_uses(view: &mut MachineView) {
    view.held.clear();
    for snapshot in &mut view.snapshots {
        snapshot.in_use = false;
    }
}

/// Whether nothing in a directory without a link is ours.
fn is_nothing(view: &MachineView) -> bool {
    delete_plan(view, true).iter().all(Step::is_end)
}
