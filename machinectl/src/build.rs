//! The commands about builds. They ask the agent; only `rebuild` and `bisect` touch a volume.

mod artifacts;
mod auxiliary;
mod bisect;
mod delete;
mod explain;
mod follow;
mod forecast;
mod fork;
mod interactive;
mod list;
mod log;
mod rebuild;
mod replace;
mod resources;
mod show;
mod stamped_lines;
mod submit;
mod temporary_machine;
mod waiting;

use std::io;
use std::path::PathBuf;

use clap::Subcommand;
use client::{Client, ClientError};
use config::BuildId;
use config::builds::{Cancellation, State};

use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use list::Filter;

pub(crate) use artifacts::Produced;
pub(crate) use bisect::search;
pub(crate) use delete::plan as plan_deletion;
pub(crate) use follow::{POLL_INTERVAL, finish_submission, wait};
pub(crate) use interactive::outcome as wait_for_outcome;
pub(crate) use log::Command as LogCommand;
pub(crate) use resources::ResourceOptions;
pub(crate) use submit::{BuildArguments, may_be_repeated, upload_sources};
pub(crate) use waiting::WaitingOptions;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a build and print its number
    ///
    /// The sources are uploaded to the agent, so they may change or be deleted afterwards. If an
    /// equivalent build is unfinished, its number is printed and no new build is created.
    Build {
        #[command(flatten)]
        arguments: Box<BuildArguments>,
        #[command(flatten)]
        waiting: WaitingOptions,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// List builds, the newest first; show or delete single builds
    #[command(args_conflicts_with_subcommands = true)]
    Builds {
        #[command(subcommand)]
        command: Option<BuildsCommand>,
        /// Show everything about this build instead
        build: Option<BuildId>,
        #[command(flatten)]
        filter: Box<Filter>,
    },
    #[command(flatten)]
    Log(log::Command),
    /// List the files that a build produced, or fetch them
    Artifacts {
        /// The build
        build: BuildId,
        /// Fetch all files and their provenance into this directory
        #[arg(short, long, value_name = "DIR")]
        output: Option<PathBuf>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Print the provenance of a build's artifacts as an in-toto statement
    Provenance {
        /// The build
        build: BuildId,
        /// Print the signed statement, a DSSE envelope
        #[arg(long)]
        signed: bool,
    },
    /// Explain in one sentence why a build, or the queue, waits
    ///
    /// For a waiting build, the sentence ends with its place in the queue and an estimate of its
    /// start, from the durations of earlier builds.
    #[command(alias = "why")]
    Explain {
        /// The build; by default the queue
        build: Option<BuildId>,
    },
    /// Cancel a build
    Cancel {
        /// The build
        build: BuildId,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Fork a running build: copies of its guest continue where it is, each as a build
    ///
    /// Memory, disk and position of the guest are copied while it is stopped for a moment. Each
    /// copy gets random numbers, the time and an identity of its own, which the file
    /// $BUILDHOST_FORK tells the build: `3 of 8`. The source is `0 of 8` then. Only virtual
    /// machines that boot by BIOS and were started from a checkpoint can be forked.
    Fork {
        /// The build
        build: BuildId,
        /// The number of copies; all start, or none
        #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(config::builds::Fork::COPIES_MAX)))]
        copies: u32,
        #[command(flatten)]
        dry_run: DryRun,
    },
    #[command(flatten)]
    Rebuild(rebuild::Command),
    #[command(flatten)]
    Bisect(bisect::Command),
    #[command(flatten)]
    Interactive(interactive::Command),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// Delete finished builds with their records, logs and artifacts
    Delete {
        /// The builds
        #[arg(required = true, value_name = "BUILD")]
        builds: Vec<BuildId>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let client = options.client()?;
    match command {
        Command::Build {
            arguments, dry_run, ..
        } if dry_run.enabled => submit::plan(&client, arguments, output),
        Command::Build {
            arguments, waiting, ..
        } => waiting::submit(&client, arguments, waiting, output),
        Command::Builds {
            command: Some(BuildsCommand::Delete { builds, dry_run }),
            ..
        } => delete::run(&client, builds, *dry_run, output),
        Command::Builds {
            build: Some(id), ..
        } => show::run(&client, &client.build(*id)?, output),
        Command::Builds { filter, .. } => list::run(&client, filter, output),
        Command::Log(command) => log::run(command, &client, output),
        Command::Artifacts {
            build,
            output: None,
            ..
        } => Produced::of(&client.build(*build)?).list(output),
        Command::Artifacts {
            build,
            output: Some(directory),
            dry_run,
        } => {
            let produced = Produced::of(&client.build(*build)?);
            produced.require_files()?;
            produced.fetch(&client, directory, *dry_run, output)
        }
        Command::Provenance { build, signed } => provenance(&client, *build, *signed),
        Command::Explain { build } => explain::run(&client, *build, output),
        Command::Cancel { build, dry_run } => cancel(&client, *build, *dry_run, output),
        Command::Fork {
            build,
            copies,
            dry_run,
        } => fork::run(&client, *build, *copies, *dry_run, output),
        Command::Rebuild(command) => rebuild::run(command, &client, options, output),
        Command::Bisect(command) => bisect::run(command, &client, options, output),
        Command::Interactive(command) => interactive::run(command, &client, output),
    }
}

/// Prints the provenance of a build.
pub(crate) fn provenance(client: &Client, build: BuildId, signed: bool) -> Result<(), Failure> {
    let stdout = &mut io::stdout();
    let copied = if signed {
        client.copy_signed_provenance(build, stdout)
    } else {
        client.copy_provenance(build, stdout)
    };
    unless_closed(copied)
}

/// Returns the result of copying to stdout. A reader that has read enough is no failure.
pub(crate) fn unless_closed(copied: Result<u64, ClientError>) -> Result<(), Failure> {
    match copied {
        Err(error) if error.is_closed_output() => Ok(()),
        copied => Ok(copied.map(drop)?),
    }
}

fn cancel(client: &Client, id: BuildId, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    if dry_run.enabled {
        let state = client.build(id)?.state;
        if state.cancellation() == Cancellation::TooLate {
            let text = format!("build {id} is {state}: too late to cancel it");
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        return output.plan(format_args!("cancel build {id}, which is {state}"));
    }
    let after = client.cancel(id)?;
    output.status(match after.state {
        State::Finished => format!("canceled build {id}"),
        _ => format!("cancelling build {id}"),
    });
    Ok(())
}
