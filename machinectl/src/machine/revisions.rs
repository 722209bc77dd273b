//! The commands about revisions: `rollback`, `verify`, `record`, `diff`, `pin`, `unpin`, `prune`.

mod diff;
pub(super) mod record;

use std::time::{Duration, SystemTime};

use clap::Subcommand;
use config::{MachineName, Revision};
use store::content_manifest::Format;
use store::init::Size;
use store::prune::{self, PrunePolicy};
use store::{MachineChange, Volume};

use super::note::author;
use super::retention::report;
use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::{Output, count};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the revision of a machine that is on trial current
    ///
    /// A revision is on trial if it was brought in with --canary. The agent of the host promotes it
    /// when enough builds have succeeded on it; this command does not wait for them. With --farm, publishes
    /// the revision that is on trial in the farm.
    Promote {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Make an older revision of a machine current again
    ///
    /// If a new revision is on trial and no other one is named, ends the trial; the current
    /// revision stays. With --farm, ends the trial in the farm.
    Rollback {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision; by default the one before the current one
        revision: Option<Revision>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Compare a revision with its content manifest
    ///
    /// Compares all files: names, types, content, modes, owners, link targets, device numbers,
    /// extended attributes, capabilities and ACLs. A revision without a content manifest is compared
    /// with what `record` has recorded. The exit code is 23 if there are differences.
    Verify {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision; by default the current one
        revision: Option<Revision>,
    },
    /// Record the content of a revision that has no content manifest
    ///
    /// Reads the whole revision and writes the hashes of its files beside it, so that `verify` and
    /// `diff` can use them: a received revision is never written to. The record says what is here
    /// now. It does not prove to another host that the revision is as its sender made it, so
    /// `push` and `pull` do not use it. After the revision was changed by hand, `verify` names the
    /// changes, and `diff` no longer uses the record.
    Record {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision; by default the current one
        revision: Option<Revision>,
        /// Record the revision again, also if it was changed after it was recorded
        #[arg(long)]
        again: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Show the differences between two revisions, from their content manifests
    ///
    /// Prints each file, directory and link that was added or changed, or that is missing, with
    /// its sizes. Only the content manifests are read, or the records of `record`; `verify` compares a revision
    /// with its own.
    /// The exit code is 23 if there are differences.
    Diff {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The older revision
        older: Revision,
        /// The newer revision
        newer: Revision,
    },
    /// Protect a revision from pruning
    Pin {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision
        revision: Revision,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// End the protection of a revision from pruning
    Unpin {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The revision
        revision: Revision,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Delete old revisions that are neither current, on trial nor pinned
    Prune {
        /// The machines; by default all machines of the volume
        #[arg(value_name = "MACHINE")]
        names: Vec<MachineName>,
        /// The number of revisions to keep of each machine
        #[arg(long, value_name = "NUMBER", default_value_t = 2)]
        keep: usize,
        /// Delete only revisions that are at least this old
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
        /// Stop when this much space is free, such as 20G, 1.5 TiB or 500GB
        #[arg(long, value_name = "SIZE")]
        until_free: Option<Size>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = Volume::open(&options.volume)?;
    match command {
        Command::Promote { name, dry_run } => {
            change(&volume, name, MachineChange::Promote, *dry_run, output)
        }
        Command::Rollback {
            name,
            revision,
            dry_run,
        } => {
            let wanted = MachineChange::RollBack(*revision);
            change(&volume, name, wanted, *dry_run, output)
        }
        Command::Verify { name, revision } => verify(&volume, name, *revision, output),
        Command::Record {
            name,
            revision,
            again,
            dry_run,
        } => record::run(&volume, name, *revision, *again, *dry_run, output),
        Command::Diff { name, older, newer } => diff::run(&volume, name, (*older, *newer), output),
        Command::Pin {
            name,
            revision,
            dry_run,
        } => {
            let wanted = MachineChange::Pin(*revision);
            change(&volume, name, wanted, *dry_run, output)
        }
        Command::Unpin {
            name,
            revision,
            dry_run,
        } => {
            let wanted = MachineChange::Unpin(*revision);
            change(&volume, name, wanted, *dry_run, output)
        }
        Command::Prune {
            names,
            keep,
            older_than,
            until_free,
            dry_run,
        } => {
            let age = older_than.map(|days| Duration::from_hours(24 * u64::from(days)));
            let rule = PrunePolicy {
                keep: *keep,
                created_before: age.and_then(|age| SystemTime::now().checked_sub(age)),
                free_target: until_free.map(Size::bytes),
            };
            prune(&volume, names, &rule, *dry_run, output)
        }
    }
}

/// Carries a change of a machine out, or says what it would do.
fn change(
    volume: &Volume,
    name: &MachineName,
    wanted: MachineChange,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let step = volume.plan_change(name, wanted)?;
    if dry_run.enabled {
        return output.plan(step.plan(name));
    }
    let change = volume.execute_step(name, &step, &author())?;
    output.status(format_args!("{name}: {}", step.report(change)));
    Ok(())
}

fn verify(
    volume: &Volume,
    name: &MachineName,
    revision: Option<Revision>,
    output: &Output,
) -> Result<(), Failure> {
    let verified = volume.verify(name, revision)?;
    let files = count(verified.entries, "file");
    let mebibytes = verified.bytes >> 20;
    let original = if verified.is_recorded {
        "content that was recorded here"
    } else {
        "content manifest"
    };
    output.status(format_args!(
        "{name}: verified {files}, {mebibytes} MiB; all match the {original}"
    ));
    if verified.format < Format::Two {
        output.status(format_args!(
            "{name}: the content manifest has format {}, which does not cover device numbers, extended attributes, capabilities and ACLs",
            verified.format
        ));
    }
    Ok(())
}

fn prune(
    volume: &Volume,
    names: &[MachineName],
    rule: &PrunePolicy,
    dry_run: DryRun,
    output: &Output,
) -> Result<(), Failure> {
    let views = volume.views(names)?;
    if dry_run.enabled {
        for (machine, revision) in prune::plan(&views, rule) {
            output.plan(format_args!("delete revision {revision} of {machine}"))?;
        }
        return Ok(());
    }
    let pruned = volume.prune(&views, rule)?;
    report(&pruned, output);
    if pruned.deleted.is_empty() && pruned.failed.is_empty() && pruned.origins.is_empty() {
        output.status("nothing to prune");
    }
    let mut errors = pruned.failed.into_iter().map(|(_, _, error)| error);
    let Some(first) = errors.next() else {
        return Ok(());
    };
    for error in errors {
        output.error(&error);
    }
    Err(first.into())
}
