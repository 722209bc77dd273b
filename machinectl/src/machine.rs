//! The commands about machines and their revisions.

mod bootstraps;
mod export;
mod image;
mod ingest;
mod note;
mod remote;
mod retention;
mod revisions;
mod show;
mod trial;
mod users;

use std::time::Duration;

use clap::{Args, Subcommand};
use config::MachineName;
use store::{MachineView, RefusalKind, Volume};

use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use show::ShownMachine;

pub(crate) use revisions::Command as RevisionCommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the machines of the volume
    List {
        #[command(flatten)]
        sizes: Sizes,
    },
    /// Show the revisions, images and snapshots of a machine
    Status {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        #[command(flatten)]
        sizes: Sizes,
    },
    #[command(flatten)]
    Ingest(ingest::Command),
    /// Make machines from Linux distributions
    #[command(subcommand)]
    Image(image::Command),
    #[command(flatten)]
    Revisions(revisions::Command),
    #[command(flatten)]
    Remote(remote::Command),
    /// Delete a machine with all its revisions and images
    ///
    /// The machine goes out of service at once. Its deletion waits for the builds that use it, and
    /// queued ones are aborted. A machine with pinned revisions is only deleted with --force. The
    /// agent, if it is running, tells which builds and schedules use the machine; a schedule stays
    /// and fails until the machine exists again.
    Delete {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// Time to wait for builds that use the machine
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
        /// Delete the machine even while it is in use, and pinned revisions, too
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        dry_run: DryRun,
    },
    #[command(flatten)]
    Export(export::Command),
}

/// The option of commands that show machines.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Sizes {
    /// Count the space of machines, revisions and images
    ///
    /// SIZE is all data of a revision or an image, and OWN the part that is in no other one, so
    /// that its deletion frees it. What the revisions of a machine share counts once in the size
    /// of the machine. btrfs does not keep these numbers, so the extents of all files are read:
    /// 10 revisions of 10,000 files and 2 GiB take 2 seconds, or 4 after a boot.
    #[arg(id = "sizes", long = "sizes")]
    enabled: bool,
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::List { sizes } => list(*sizes, options, output),
        Command::Status { name, sizes } => status(name, *sizes, options, output),
        Command::Ingest(command) => {
            warn_of_old_btrfs_progs(output);
            ingest::run(command, options, output)
        }
        Command::Image(command) => image::run(command, options, output),
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
            let view = volume.view(name)?;
            store::check_delete(&view, *force)?;
            users::report(&volume, name, options.socket(), output);
            if dry_run.enabled {
                return plan_deletion(&view, *force, output);
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

fn status(
    name: &MachineName,
    sizes: Sizes,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = &Volume::open(&options.volume)?;
    let view = volume.view(name)?;
    let usage = sizes.enabled.then(|| volume.usage(&view)).transpose()?;
    let machine = if output.is_json() {
        ShownMachine::in_detail(volume, view)
    } else {
        ShownMachine::new(volume, view)
    };
    let bootstraps = bootstraps::of_volume(volume, options.socket()).remove(name);
    let machine = machine
        .with_usage(usage)
        .with_bootstraps(bootstraps.unwrap_or_default());
    show::status(&machine, volume, output)
}

fn list(sizes: Sizes, options: &GlobalOptions, output: &Output) -> Result<(), Failure> {
    let volume = &Volume::open(&options.volume)?;
    let mut bootstraps = bootstraps::of_volume(volume, options.socket());
    let mut shown = Vec::new();
    for name in volume.machines()? {
        match volume.view(&name) {
            Ok(view) if view.is_unmanaged() => {}
            Ok(view) => {
                let machine = with_usage(volume, view, sizes, output);
                let bootstraps = bootstraps.remove(&name).unwrap_or_default();
                shown.push(machine.with_bootstraps(bootstraps));
            }
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
    output.print_table(&show::table(&shown, sizes.enabled))
}

/// Returns a machine with its space, if that is wanted and can be counted.
fn with_usage(volume: &Volume, view: MachineView, sizes: Sizes, output: &Output) -> ShownMachine {
    let usage = sizes.enabled.then(|| volume.usage(&view));
    let usage = usage.and_then(|usage| usage.map_err(|error| output.warn(&error)).ok());
    ShownMachine::new(volume, view).with_usage(usage)
}

fn delete(
    volume: &Volume,
    name: &MachineName,
    timeout: Duration,
    force: bool,
    output: &Output,
) -> Result<(), Failure> {
    let report = volume.delete(name, timeout, force)?;
    for step in report.steps.iter().filter(|step| !step.is_internal()) {
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
    let steps = store::plan_delete(view, force).into_iter();
    for step in steps.filter(|step| !step.is_internal()) {
        output.plan(format_args!("{step} of {}", view.name))?;
    }
    Ok(())
}
