//! The changes of a machine that a person asks for, with the same steps and words for the command
//! line and the agent.

use config::{ControllerName, MachineName, Revision};

use crate::{Change, MachineView, Result, Volume};

/// A change of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineChange {
    /// Makes a revision current. Without one, ends a trial, or makes the revision before the current
    /// one current.
    RollBack(Option<Revision>),
    /// Prevents the pruning of a revision.
    Pin(Revision),
    /// Allows the pruning of a revision.
    Unpin(Revision),
    /// Makes the revision on trial current, or finishes that.
    Promote,
    /// Ends the trial; the current revision stays.
    Reject,
}

/// The step that carries a change out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineStep {
    /// Makes a revision current.
    MakeCurrent(Revision),
    /// Promotes the revision on trial.
    Promote {
        /// The revision on trial.
        candidate: Revision,
        /// The farm whose trial goes on elsewhere.
        farm: Option<ControllerName>,
    },
    /// Ends the trial of a revision.
    EndTrial {
        /// The revision on trial.
        candidate: Revision,
        /// The current revision, which stays.
        current: Option<Revision>,
        /// The farm whose trial goes on elsewhere.
        farm: Option<ControllerName>,
    },
    /// Pins a revision.
    Pin(Revision),
    /// Unpins a revision.
    Unpin(Revision),
}

impl MachineStep {
    /// Returns the sentence that says what would be done.
    pub fn plan(&self, machine: &MachineName) -> String {
        match self {
            Self::MakeCurrent(revision) => format!("make revision {revision} of {machine} current"),
            Self::Promote { candidate, farm } => format!(
                "make revision {candidate} of {machine} current{}",
                elsewhere(farm.as_ref())
            ),
            Self::EndTrial {
                candidate,
                current,
                farm,
            } => format!(
                "end the trial of revision {candidate} of {machine}; revision {} stays current{}",
                or_empty(*current),
                elsewhere(farm.as_ref())
            ),
            Self::Pin(revision) => format!("pin revision {revision} of {machine}"),
            Self::Unpin(revision) => format!("unpin revision {revision} of {machine}"),
        }
    }

    /// Returns the sentence that says what was done.
    pub fn report(&self, change: Change) -> String {
        match (self, change) {
            (Self::MakeCurrent(revision), _) => format!("revision {revision} is now current"),
            (Self::Promote { candidate, farm }, _) => format!(
                "revision {candidate} is now current{}",
                elsewhere(farm.as_ref())
            ),
            (
                Self::EndTrial {
                    candidate,
                    current,
                    farm,
                },
                _,
            ) => format!(
                "the trial of revision {candidate} has ended; revision {} stays current{}",
                or_empty(*current),
                elsewhere(farm.as_ref())
            ),
            (Self::Pin(revision), Change::Changed) => format!("pinned revision {revision}"),
            (Self::Pin(revision), Change::Unchanged) => {
                format!("revision {revision} is pinned already")
            }
            (Self::Unpin(revision), Change::Changed) => format!("unpinned revision {revision}"),
            (Self::Unpin(revision), Change::Unchanged) => {
                format!("revision {revision} is not pinned")
            }
        }
    }
}

/// Returns the end of a sentence about a change on this host alone, if a farm decides on the trial.
fn elsewhere(farm: Option<&ControllerName>) -> String {
    farm.map_or_else(String::new, |farm| {
        format!(" on this host; the trial of farm {farm} goes on elsewhere")
    })
}

fn or_empty(revision: Option<Revision>) -> String {
    revision.map_or_else(String::new, |it| it.to_string())
}

impl Volume {
    /// Returns the step that carries a change out.
    ///
    /// # Errors
    /// The machine or the revision does not exist, or no revision is on trial.
    pub fn plan_change(&self, machine: &MachineName, change: MachineChange) -> Result<MachineStep> {
        let view = self.view(machine)?;
        let farm = || {
            let newest = view.candidate().map(|(_, trial)| trial);
            Some(newest?.farm.as_ref()?.controller.clone())
        };
        let end_trial = |candidate| MachineStep::EndTrial {
            candidate,
            current: view.current,
            farm: farm(),
        };
        Ok(match change {
            MachineChange::RollBack(to) => match (to, candidate(&view)) {
                (None, Some(candidate)) => end_trial(candidate),
                (to, _) => MachineStep::MakeCurrent(self.plan_rollback(machine, to)?),
            },
            MachineChange::Pin(revision) => {
                MachineStep::Pin(view.require_complete(revision)?.revision)
            }
            MachineChange::Unpin(revision) => MachineStep::Unpin(revision),
            MachineChange::Promote => MachineStep::Promote {
                candidate: match view.unfinished_promotion() {
                    Some(revision) => revision,
                    None => view.require_trial()?,
                },
                farm: farm(),
            },
            MachineChange::Reject => end_trial(view.require_trial()?),
        })
    }

    /// Carries a step out. `by` is the person who asks for it, for the reason of a decided trial.
    ///
    /// # Errors
    /// Those of the step: the machine may have changed since it was planned.
    pub fn execute_step(
        &self,
        machine: &MachineName,
        step: &MachineStep,
        by: &str,
    ) -> Result<Change> {
        match *step {
            MachineStep::MakeCurrent(revision) => self.set_current(machine, revision),
            MachineStep::Promote { candidate, .. } => {
                self.promote(machine, candidate, &format!("promoted by {by}"))?;
                Ok(Change::Changed)
            }
            MachineStep::EndTrial { candidate, .. } => {
                self.reject(machine, candidate, &format!("rolled back by {by}"))?;
                Ok(Change::Changed)
            }
            MachineStep::Pin(revision) => self.pin(machine, revision),
            MachineStep::Unpin(revision) => self.unpin(machine, revision),
        }
    }
}

fn candidate(view: &MachineView) -> Option<Revision> {
    view.candidate().map(|(view, _)| view.revision)
}
