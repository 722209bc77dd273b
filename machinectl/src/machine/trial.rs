//! Trials of new revisions: the option that begins one, and the commands that decide it.

use clap::Args;
use config::canary::Terms;
use config::{MachineName, Revision};
use store::Volume;

use super::note::author;
use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::{Output, or_empty};

/// The option of commands that bring a revision in.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct TrialOption {
    /// Put the new revision on trial: of M builds, N run on it, until N have succeeded
    ///
    /// The current revision stays until then. A build that fails on the new revision runs again on
    /// the current one; if it succeeds there, that is a strike. Two strikes (one if N is 1) or a
    /// failed bootstrap roll the new revision back, and each strike adds N builds. The agent of the
    /// host decides; `status` shows the reason, and `promote` and `rollback` decide at once. The
    /// first revision of a machine becomes current at once.
    #[arg(id = "canary", long = "canary", value_name = "N/M")]
    terms: Option<Terms>,
}

impl TrialOption {
    /// Returns the terms, if a trial is wanted.
    pub(super) fn terms(self) -> Option<Terms> {
        self.terms
    }

    /// Returns the terms of the trial that begins for a machine; `None` if the new revision becomes
    /// current.
    pub(super) fn begins(self, before: Option<Revision>) -> Option<Terms> {
        self.terms.filter(|_| before.is_some())
    }
}

/// Describes the publication of a revision: that it has become current, or that it is on trial.
pub(super) fn published(revision: Revision, trial: Option<Terms>) -> String {
    match trial {
        Some(terms) => format!("revision {revision} is now on trial ({terms})"),
        None => format!("revision {revision} is now current"),
    }
}

/// Promotes the revision on trial, or finishes its promotion.
pub(super) fn promote(
    volume: &Volume,
    name: &MachineName,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let view = volume.view(name)?;
    let revision = match view.unfinished_promotion() {
        Some(revision) => revision,
        None => view.require_trial()?,
    };
    if dry_run.enabled {
        return output.plan(format_args!("make revision {revision} of {name} current"));
    }
    volume.promote(name, revision, &format!("promoted by {}", author()))?;
    output.status(format_args!("{name}: revision {revision} is now current"));
    Ok(())
}

/// Rolls the revision on trial back.
pub(super) fn reject(
    volume: &Volume,
    name: &MachineName,
    revision: Revision,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let current = or_empty(volume.view(name)?.current);
    if dry_run.enabled {
        return output.plan(format_args!(
            "end the trial of revision {revision} of {name}; revision {current} stays current"
        ));
    }
    volume.reject(name, revision, &format!("rolled back by {}", author()))?;
    output.status(format_args!(
        "{name}: the trial of revision {revision} has ended; revision {current} stays current"
    ));
    Ok(())
}
