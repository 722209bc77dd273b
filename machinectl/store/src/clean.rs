//! Clean-up: the deletion of the remains of interrupted operations. Unmanaged entries stay.

mod plan;

use std::fmt;
use std::path::{Path, PathBuf};

use config::MachineName;
use config::layout::Entry;
use rustix::io::Errno;

pub(crate) use plan::discard_partials;
pub use plan::{Step, plan, plan_deletion};

use crate::{
    Change, LockRefusal, MachineView, Refusal, RefusalKind, Result, StoreError, Volume, lock,
};
use btrfs::error::IoContext;

/// The refusal to delete the subvolume that is mounted by default.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` is the default subvolume of its file system, which btrfs does not delete; make the top one the default first: `btrfs subvolume set-default 5 {}`",
    path.display(),
    volume.display()
)]
pub struct DefaultSubvolume {
    /// The subvolume.
    path: PathBuf,
    /// The volume.
    volume: PathBuf,
}

impl Refusal for DefaultSubvolume {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Invalid
    }
}

/// The result of a clean-up or a repair.
#[derive(Debug, Default)]
pub struct CleanReport {
    /// The executed steps, in order.
    pub done: Vec<(MachineName, Step)>,
    /// The failures. Each of them affects one step or one machine only.
    pub failed: Vec<CleanFailure>,
}

/// A failure of a clean-up.
#[derive(Debug)]
pub struct CleanFailure {
    /// The machine; `None` if it affects the volume.
    pub machine: Option<MachineName>,
    /// The step; `None` if the steps could not be determined.
    pub step: Option<Step>,
    /// The error.
    pub error: StoreError,
}

impl fmt::Display for CleanFailure {
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
        self.failed.push(CleanFailure {
            machine: machine.cloned(),
            step,
            error,
        });
    }
}

impl Volume {
    /// Cleans the volume after a boot, when no earlier operation can be running; [`plan`]
    /// determines the steps. Entries in use stay. A failure does not stop the rest.
    pub fn clean_after_boot(&self) -> CleanReport {
        self.clean(plan, |_| true)
    }

    /// Finishes interrupted deletions of machines that are not in use.
    pub fn finish_deletions(&self) -> CleanReport {
        self.clean(plan_deletion, |view| view.deleting && !view.is_in_use())
    }

    fn clean(
        &self,
        plan: fn(&MachineView) -> Vec<Step>,
        selects: impl Fn(&MachineView) -> bool,
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
            if let Err(error) = self.clean_machine(&machine, plan, &selects, &mut report) {
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
        plan: fn(&MachineView) -> Vec<Step>,
        selects: impl Fn(&MachineView) -> bool,
        report: &mut CleanReport,
    ) -> Result<()> {
        // Most machines are clean, so most are not locked.
        let view = self.view(machine)?;
        if !selects(&view) || plan(&view).is_empty() {
            return Ok(());
        }
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        if selects(&view) {
            self.execute_all(machine, plan(&view), report);
        }
        Ok(())
    }

    /// Executes steps in order and reports each. After a failure the final steps are skipped.
    /// The caller holds the lock.
    pub(crate) fn execute_all(
        &self,
        machine: &MachineName,
        steps: impl IntoIterator<Item = Step>,
        report: &mut CleanReport,
    ) {
        let mut has_failed = false;
        for step in steps {
            if step.is_final() && has_failed {
                continue;
            }
            match self.execute(machine, &step) {
                Ok(()) => report.done.push((machine.clone(), step)),
                Err(error) => {
                    has_failed = true;
                    report.fail(Some(machine), Some(step), error);
                }
            }
        }
    }

    /// Executes a step. The caller holds the lock.
    pub(crate) fn execute(&self, machine: &MachineName, step: &Step) -> Result<()> {
        match step {
            Step::Delete(entry) => {
                let path = self.entry(machine, entry);
                let Some(_unused) = lock::lock_unused(&path).context("open", &path)? else {
                    return Err(LockRefusal::in_use(&path).into());
                };
                self.delete_subvolume(&path)?
            }
            Step::Unlink(Entry::Ingest) => {
                let path = self.entry(machine, &Entry::Ingest);
                self.backend
                    .remove_directory(&path)
                    .context("remove", &path)?
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

    /// Deletes a subvolume, even if a process has it open, but not while it is being sent.
    pub(crate) fn delete_subvolume(&self, path: &Path) -> Result<Change> {
        match self.backend.delete(path) {
            // For root, this error means that the subvolume is the default one or is being sent.
            Err(error)
                if error.raw_os_error() == Some(Errno::PERM.raw_os_error())
                    && rustix::process::geteuid().is_root() =>
            {
                self.refuse_default(&[path.to_owned()])?;
                Err(LockRefusal::Sending(path.to_owned()).into())
            }
            result => result.context("delete", path),
        }
    }

    /// Fails if one of these subvolumes is mounted by default.
    pub(crate) fn refuse_default(&self, subvolumes: &[PathBuf]) -> Result<()> {
        match self.backend.find_default(subvolumes) {
            Ok(Some(path)) => Err(DefaultSubvolume {
                path,
                volume: self.path().to_owned(),
            }
            .into()),
            // If it cannot be found, btrfs refuses the deletion.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
