//! Pruning after a new revision, as `--keep` requests it.

use std::num::NonZeroU32;

use clap::Args;
use config::{MachineName, Revision};
use store::Volume;
use store::prune::{self, PrunePolicy, PruneReport};

use crate::exit_code::Failure;
use crate::output::Output;

/// The option of commands that bring a revision in.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Retention {
    /// Then keep only this number of the newest revisions, as `prune --keep` does
    ///
    /// Applies where the new revision becomes current: for `push`, on the remote host. The agent
    /// can do the same automatically with its setting machines.keep_revisions.
    #[arg(long, value_name = "NUMBER")]
    pub(super) keep: Option<NonZeroU32>,
}

impl Retention {
    fn rule(self) -> Option<PrunePolicy> {
        Some(PrunePolicy {
            keep: usize::try_from(self.keep?.get()).unwrap_or(usize::MAX),
            created_before: None,
            free_target: None,
        })
    }

    /// Prunes a machine whose new revision has become current. The command has succeeded then,
    /// so a failure to prune is only a warning.
    pub(super) fn apply(self, volume: &Volume, name: &MachineName, output: &Output) {
        let Some(rule) = self.rule() else {
            return;
        };
        let views = volume.views(std::slice::from_ref(name));
        match views.and_then(|views| volume.prune(&views, &rule)) {
            Ok(pruned) => {
                report(&pruned, output);
                for (_, _, error) in &pruned.failed {
                    output.warn(error);
                }
            }
            Err(error) => output.warn(&error),
        }
    }

    /// Prints what [`Retention::apply`] would delete with `next` as the current revision.
    pub(super) fn plan(
        self,
        volume: &Volume,
        name: &MachineName,
        next: Revision,
        output: &Output,
    ) -> Result<(), Failure> {
        let (Some(mut rule), Ok(mut view)) = (self.rule(), volume.view(name)) else {
            return Ok(());
        };
        if view.revision(next).is_none() {
            rule.keep = rule.keep.saturating_sub(1);
        }
        view.current = Some(next);
        for (machine, revision) in prune::plan([&view], &rule) {
            output.plan(format_args!("delete revision {revision} of {machine}"))?;
        }
        Ok(())
    }
}

/// Prints which revisions were deleted, and which were kept because they are in use.
pub(super) fn report(pruned: &PruneReport, output: &Output) {
    for (machine, revision) in &pruned.deleted {
        output.status(format_args!("{machine}: deleted revision {revision}"));
    }
    for (machine, revision) in &pruned.origins {
        output.status(format_args!(
            "{machine}: kept revision {revision}, which an image or a build uses"
        ));
    }
}
