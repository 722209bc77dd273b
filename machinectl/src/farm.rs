//! The commands about a farm, at one of its coordinators: those that only a farm has, and those of a host
//! that `--farm` makes work with a farm.

mod builds;
mod files;
mod hosts;
mod publish;
mod schedules;
mod submit;
mod trials;
mod windows;

use clap::Subcommand;
use client::Client;
use config::MachineName;
use config::canary::Terms;
use farm_core::Revision;

use crate::build;
use crate::exit_code::{ExitStatus, Failure};
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;

pub(crate) use builds::list_for_toaster;
pub(crate) use hosts::drain;
pub(crate) use schedules::{run as run_schedules, run_projects};
pub(crate) use trials::end as end_trial;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the hosts of a farm, or show one
    Hosts {
        /// Show everything about this host instead
        host: Option<String>,
        #[command(flatten)]
        filter: hosts::Filter,
    },
    /// List the machines of a farm, their revisions and their hosts
    Machines,
    /// Make a revision of a machine the one that all hosts of a farm use
    ///
    /// Its content is that of the hosts that have it. The others fetch it from them, and get no builds of
    /// the machine before.
    Publish {
        /// The machine
        machine: MachineName,
        /// The number of the revision, which is on a host of the farm already
        revision: u64,
        /// Put the revision on trial first: of M builds, N run on it, until N have succeeded
        ///
        /// All hosts that have the machine fetch the revision, and the published one stays. A build that fails on
        /// the revision runs again on the published one; if it succeeds there, that is a strike. Two strikes
        /// (one if N is 1) or a failed bootstrap roll the revision back, and each strike adds N builds.
        /// `machines` shows the trial; `promote` and `rollback` end it at once.
        #[arg(long, value_name = "N/M")]
        canary: Option<Terms>,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Show the queue of a farm and why its oldest builds wait
    Queue,
}

/// Returns a client of the farm that the options name.
pub(crate) fn client(options: &GlobalOptions) -> Result<Client, Failure> {
    if options.has_farm()? {
        return options.client();
    }
    let text = "the command needs a farm: name it with --farm https://HOST:PORT, or use a context of \
                `buildhost context add NAME farm:https://HOST:PORT`";
    Err(Failure::new(ExitStatus::Usage, text))
}

/// Runs a command that only a farm has.
pub(crate) fn run(command: &Command, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Hosts { host: None, filter } => hosts::list(client, filter, output),
        Command::Hosts {
            host: Some(name), ..
        } => hosts::show(&client.farm_host(name)?, output),
        Command::Machines => hosts::machines(&client.farm_machines()?, output),
        Command::Publish {
            machine,
            revision,
            canary: None,
            dry_run,
        } => publish::run(client, machine, Revision(*revision), *dry_run, output),
        Command::Publish {
            machine,
            revision,
            canary: Some(terms),
            dry_run,
        } => {
            let revision = Revision(*revision);
            trials::begin(client, (machine, revision, *terms), *dry_run, output)
        }
        Command::Queue => builds::queue(&client.farm_queue()?, output),
    }
}

/// Runs a command about builds with a farm.
pub(crate) fn run_builds(
    command: &build::Command,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        build::Command::Builds {
            build: Some(id), ..
        } => builds::show(&client.farm_build(*id)?, output),
        build::Command::Builds {
            command: None,
            filter,
            ..
        } => builds::list(client, &filter.of_farm()?, output),
        build::Command::Explain { build: Some(id) } => {
            builds::explain(&client.farm_build(*id)?, output)
        }
        build::Command::Explain { build: None } => builds::queue(&client.farm_queue()?, output),
        build::Command::Cancel { build, dry_run } => {
            builds::cancel(client, *build, *dry_run, output)
        }
        build::Command::Log(command) => builds::log(command, client),
        build::Command::Build {
            arguments,
            waiting,
            dry_run,
        } => submit::run(client, arguments, waiting, *dry_run, output),
        build::Command::Artifacts {
            build,
            output: None,
            ..
        } => files::produced(client, &client.farm_build(*build)?)?.list(output),
        build::Command::Artifacts {
            build,
            output: Some(directory),
            dry_run,
        } => {
            let produced = files::produced(client, &client.farm_build(*build)?)?;
            produced.require_files()?;
            produced.fetch(client, directory, *dry_run, output)
        }
        build::Command::Provenance { build, signed } => build::provenance(client, *build, *signed),
        _ => {
            let text = "the command needs the agent of one host; name it with --host";
            Err(Failure::new(ExitStatus::Refused, text))
        }
    }
}
