//! Changes of the current revision, also back to an older one.

use config::canary::TrialVerdict;
use config::{MachineName, Revision};

use crate::{Change, MachineRefusal, Result, Volume};

impl Volume {
    /// Makes a complete revision the current one, and ends the trials of others: they do not go on
    /// beside an older revision. A revision on trial is promoted.
    ///
    /// # Errors
    /// The machine does not exist or is being deleted, or the revision does not exist or is
    /// not complete.
    pub fn set_current(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.view(machine)?;
        if view.deleting {
            return Err(MachineRefusal::Deleting(machine.clone()).into());
        }
        view.require_complete(revision)?;
        let candidate = view.candidate().map(|(view, _)| view.revision);
        if candidate == Some(revision) {
            self.promote_locked(&view, revision, "it was made current by hand")?;
            return Ok(Change::Changed);
        }
        let mut change = Change::Unchanged;
        let undecided = view.trials.iter().filter(|(_, trial)| trial.end.is_none());
        for (other, _) in undecided.filter(|(other, _)| **other != revision) {
            let reason = format!("revision {revision} was made current by hand");
            self.end_trial(&view, *other, TrialVerdict::RolledBack, &reason)?;
            change = Change::Changed;
        }
        if view.current != Some(revision) {
            self.publish_revision(machine, revision)?;
            change = Change::Changed;
        } else if change == Change::Changed {
            self.commit()?;
        }
        Ok(change)
    }

    /// Makes an older revision current: the given one, or the newest complete one before the
    /// current one. Returns its number.
    ///
    /// # Errors
    /// There is no such revision.
    pub fn roll_back(&self, machine: &MachineName, to: Option<Revision>) -> Result<Revision> {
        let target = self.plan_rollback(machine, to)?;
        self.set_current(machine, target)?;
        Ok(target)
    }

    /// Returns the revision that [`Volume::roll_back`] would make current.
    ///
    /// # Errors
    /// There is no such revision.
    pub fn plan_rollback(&self, machine: &MachineName, to: Option<Revision>) -> Result<Revision> {
        let view = self.view(machine)?;
        if let Some(revision) = to {
            return Ok(view.require_complete(revision)?.revision);
        }
        let current = view.require_current()?.revision;
        view.revisions
            .iter()
            .rfind(|it| it.complete && it.revision < current)
            .map(|it| it.revision)
            .ok_or_else(|| MachineRefusal::NoOlderRevision(machine.clone(), current).into())
    }
}
