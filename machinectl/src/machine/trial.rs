//! Trials of new revisions: the option that begins one, and the sentence about it.

use clap::Args;
use config::Revision;
use config::canary::Terms;

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
