//! The commands about machines and their revisions.

mod export;
mod ingest;
mod remote;
mod retention;
mod revisions;
mod show;

use std::time::Duration;

use clap::Subcommand;
use config::MachineName;
use store::{MachineView, RefusalKind, Volume};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use show::ShownMachine;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the machines of the volume
    List,
    /// Show the revisions, images and snapshots of a machine
    Status {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
    },
    #[command(flatten)]
    Ingest(ingest::Command),
    #[command(flatten)]
    Revisions(revisions::Command),
    #[command(flatten)]
    Remote(remote::Command),
    /// Delete a machine with all its revisions and images
    ///
    /// The machine goes out of service at once. Its deletion waits for the builds that use it.
    Delete {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// Time to wait for builds that use the machine
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        /// Delete the machine even while it is in use
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    #[command(flatten)]
    Export(export::Command),
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::List => list(&Volume::open(&options.volume)?, output),
        Command::Status { name } => {
            let volume = Volume::open(&options.volume)?;
            let view = volume.view(name)?;
            let machine = if output.is_json() {
                ShownMachine::in_detail(&volume, view)
            } else {
                ShownMachine::new(&volume, view)
            };
            show::status(&machine, output)
        }
        Command::Ingest(command) => {
            warn_of_old_btrfs_progs(output);
            ingest::run(command, options, output)
        }
        Command::Revisions(command) => revisions::run(command, options, output),
        Command::Remote(command) => {
            warn_of_old_btrfs_progs(output);
            remote::run(command, options, output)
        }
        Command::Delete {
            name,
            timeout,
            force,
            dry_run,
        } => {
            let volume = Volume::open(&options.volume)?;
            if dry_run.enabled {
                return plan_deletion(&volume.view(name)?, *force, output);
            }
            delete(&volume, name, Duration::from_secs(*timeout), *force, output)
        }
        Command::Export(command) => {
            warn_of_old_btrfs_progs(output);
            export::run(command, options, output)
        }
    }
}

/// Warns if the installed btrfs-progs can lose data in streams.
fn warn_of_old_btrfs_progs(output: &Output) {
    if !output.is_quiet()
        && let Some(outdated) = store::btrfs_progs::outdated()
    {
        output.warn(&outdated);
    }
}

fn list(volume: &Volume, output: &Output) -> Result<(), Failure> {
    let mut shown = Vec::new();
    for name in volume.machines()? {
        match volume.view(&name) {
            Ok(view) if view.is_unmanaged() => {}
            Ok(view) => shown.push(ShownMachine::new(volume, view)),
            // The machine was deleted since the directory was read.
            Err(error) if error.kind() == Some(RefusalKind::NotFound) => {}
            Err(error) => output.error(&error),
        }
    }
    if output.is_json() {
        let machines: Vec<_> = shown.iter().map(show::json).collect();
        return output.print_json(&machines);
    }
    if shown.is_empty() {
        output.status(format_args!("no machines in {}", volume.path().display()));
    }
    output.print_table(&show::table(&shown))
}

fn delete(
    volume: &Volume,
    name: &MachineName,
    timeout: Duration,
    force: bool,
    output: &Output,
) -> Result<(), Failure> {
    let report = volume.delete(name, timeout, force)?;
    for step in &report.steps {
        output.status(format_args!("{name}: {}", step.done()));
    }
    if report.unmanaged.is_empty() {
        output.status(format_args!("deleted machine {name}"));
    } else {
        let unmanaged = report.unmanaged.join(", ");
        output.status(format_args!(
            "deleted machine {name} except unmanaged entries: {unmanaged}"
        ));
    }
    Ok(())
}

fn plan_deletion(view: &MachineView, force: bool, output: &Output) -> Result<(), Failure> {
    for step in store::plan_delete(view, force) {
        output.plan(format_args!("{step} of {}", view.name))?;
    }
    Ok(())
}
