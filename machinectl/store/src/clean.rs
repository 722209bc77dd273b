//! Cleaning: what a reboot or a killed process left behind goes, strangers stay.

mod plan;

use std::fmt;
use std::path::Path;

use config::MachineName;
use config::layout::Entry;

pub use plan::{Step, plan, plan_deletion};

use rustix::io::Errno;

use crate::error::IoContext;
use crate::{Change, LockRefusal, Result, StoreError, Volume, lock};

/// What was cleaned, and what could not be.
#[derive(Debug, Default)]
pub struct CleanReport {
    /// What went, in order.
    pub done: Vec<(MachineName, Step)>,
    /// What could not go; everything else was done nevertheless.
    pub failed: Vec<Failure>,
}

/// Something that could not be cleaned.
#[derive(Debug)]
pub struct Failure {
    /// The machine; `None` when it was the volume itself.
    pub machine: Option<MachineName>,
    /// What was to go; `None` when we did not come that far.
    pub step: Option<Step>,
    /// Why it did not.
    pub error: StoreError,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.machine, &self.step) {
            (Some(machine), Some(step)) => write!(f, "machine `{machine}`: cannot {step}"),
            (Some(machine), None) => write!(f, "machine `{machine}` cannot be cleaned"),
            (None, _) => write!(f, "the volume cannot be cleaned"),
        }
    }
}

impl CleanReport {
    pub(crate) fn fail(
        &mut self,
        machine: Option<&MachineName>,
        step: Option<Step>,
        error: StoreError,
    ) {
        let machine = machine.cloned();
        self.failed.push(Failure {
            machine,
            step,
            error,
        });
    }
}

impl Volume {
    /// What [`Volume::clean_after_boot`] would do now, machine by machine.
    ///
    /// # Errors
    /// When the volume cannot be listed.
    pub fn clean_plan(&self) -> Result<Vec<(MachineName, Step)>> {
        let mut steps = Vec::new();
        for machine in self.machines()? {
            // One that cannot be looked at now is reported when we act.
            if let Ok(view) = self.look(&machine) {
                steps.extend(plan(&view).into_iter().map(|step| (machine.clone(), step)));
            }
        }
        Ok(steps)
    }

    /// Cleans the volume after a boot, when nothing that was there before can be
    /// running: see [`plan`] for what goes. What somebody uses stays. A machine or
    /// an entry that cannot be cleaned is reported and does not stop the rest.
    pub fn clean_after_boot(&self) -> CleanReport {
        self.clean(plan, |_| true)
    }

    /// Finishes the deletion of machines that are on their way out and that nobody
    /// uses any more. Those that are in use are left for the next time.
    pub fn finish_deletions(&self) -> CleanReport {
        self.clean(plan_deletion, |view| view.deleting && !view.is_used())
    }

    fn clean(
        &self,
        plan: fn(&crate::MachineView) -> Vec<Step>,
        wanted: impl Fn(&crate::MachineView) -> bool,
    ) -> CleanReport {
        let mut report = CleanReport::default();
        let machines = match self.machines() {
            Ok(machines) => machines,
            Err(error) => {
                report.fail(None, None, error);
                return report;
            }
        };
        for machine in machines {
            if let Err(error) = self.clean_machine(&machine, plan, &wanted, &mut report) {
                report.fail(Some(&machine), None, error);
            }
        }
        if !report.done.is_empty()
            && let Err(error) = self.commit()
        {
            report.fail(None, None, error);
        }
        report
    }

    fn clean_machine(
        &self,
        machine: &MachineName,
        plan: fn(&crate::MachineView) -> Vec<Step>,
        wanted: impl Fn(&crate::MachineView) -> bool,
        report: &mut CleanReport,
    ) -> Result<()> {
        // Most machines are clean: look before locking.
        let view = self.look(machine)?;
        if !wanted(&view) || plan(&view).is_empty() {
            return Ok(());
        }
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        if !wanted(&view) {
            return Ok(());
        }
        self.act_all(machine, plan(&view), report);
        Ok(())
    }

    /// Does steps in order and reports each. A step that fails does not stop the
    /// rest, but then the machine does not come to its end. The caller holds the lock.
    pub(crate) fn act_all(
        &self,
        machine: &MachineName,
        steps: impl IntoIterator<Item = Step>,
        report: &mut CleanReport,
    ) {
        let mut whole = true;
        for step in steps {
            if step.is_end() && !whole {
                continue;
            }
            match self.act(machine, &step) {
                Ok(()) => report.done.push((machine.clone(), step)),
                Err(error) => {
                    whole = false;
                    report.fail(Some(machine), Some(step), error);
                }
            }
        }
    }

    /// Does one step. The caller holds the lock.
    pub(crate) fn act(&self, machine: &MachineName, step: &Step) -> Result<()> {
        match step {
            Step::Delete(entry) => {
                let path = self.entry(machine, entry);
                let Some(_unused) = lock::unused(&path).context("open", &path)? else {
                    return Err(LockRefusal::in_use(&path).into());
                };
                self.delete_subvolume(&path)?
            }
            Step::Unlink(entry) => {
                let path = self.entry(machine, entry);
                self.backend.unlink(&path).context("remove", &path)?
            }
            Step::RemoveDirectory => {
                let path = self.directory(machine);
                self.backend
                    .remove_directory(&path)
                    .context("remove", &path)?
            }
        };
        Ok(())
    }
}

impl Volume {
    /// Deletes a subvolume, whoever has it open; but not one that is being sent.
    pub(crate) fn delete_subvolume(&self, path: &Path) -> Result<Change> {
        match self.backend.delete(path) {
            // Who may administer the file system is told this only then.
            Err(error)
                if error.raw_os_error() == Some(Errno::PERM.raw_os_error())
                    && rustix::process::geteuid().is_root() =>
            {
                Err(LockRefusal::Sending(path.to_owned()).into())
            }
            result => result.context("delete", path),
        }
    }
}

impl Step {
    /// What the step is about; `None` for the directory itself.
    pub fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Delete(entry) | Self::Unlink(entry) => Some(entry),
            Self::RemoveDirectory => None,
        }
    }
}
