//! The commands for debugging: `console`, `login`, `resume`, `attach`, `release`.

mod terminal;

use std::path::PathBuf;
use std::thread::sleep;

use clap::Subcommand;
use client::{Access, Client, Console, ConsoleTarget};
use config::builds::{HoldKind, State};
use config::task::Breakpoint;
use config::{BuildId, MachineName, ToolchainName};

use super::auxiliary;
use super::follow::{self, POLL_INTERVAL};
use super::resources::ResourceOptions;
use super::submit::{self, BuildArguments};
use crate::exit_code::{ExitStatus, Failure};
use crate::options::DryRun;
use crate::output::Output;
use crate::release as layer_release;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect the terminal to the serial console of a running guest
    ///
    /// One user can type, any number can watch. `^]` disconnects; the guest keeps running.
    Console {
        /// A build, or a machine with one running guest
        #[arg(value_name = "BUILD|MACHINE")]
        guest: ConsoleTarget,
        /// The guest of an auxiliary machine of the build, by the name of its environment or its
        /// machine
        #[arg(long, value_name = "NAME")]
        auxiliary: Option<String>,
        /// Only watch
        #[arg(short, long)]
        read_only: bool,
    },
    /// Submit a build with a breakpoint and connect the terminal to the shell there
    ///
    /// The build continues when the shell exits, after `buildhost resume`, or after
    /// builds.hold_seconds_max. The command stays until the guest ends; its exit code tells how the
    /// build has ended, as with `build --follow`.
    Login {
        /// The machine
        machine: MachineName,
        /// Source files, as for `build`; optional for a breakpoint at the start
        #[arg(value_name = "SOURCE")]
        sources: Vec<PathBuf>,
        /// The breakpoint
        #[arg(long, value_name = "start|warning|error", value_parser = submit::breakpoint)]
        #[arg(default_value = "start")]
        at: Breakpoint,
        /// The toolchain; by default the agent's default toolchain
        #[arg(long, value_name = "NAME")]
        toolchain: Option<ToolchainName>,
        #[command(flatten)]
        resources: ResourceOptions,
    },
    /// Continue a build that waits at its breakpoint
    Resume {
        /// The build
        build: BuildId,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Boot a copy of the held guest of a failed build, with a shell on the terminal
    ///
    /// The copy has its own network and can fetch the sources again; its disk is as the build left
    /// it. It is deleted with all its changes when the shell exits, when `^]` disconnects, or
    /// after builds.hold_seconds_max. The held guest does not change, so several copies can exist
    /// at the same time.
    Attach {
        /// The build
        build: BuildId,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Release what is held for a failed build; manage releases of layers
    ///
    /// With a build, its guest and its snapshot are released.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Release {
        /// The build
        #[arg(required = true)]
        build: Option<BuildId>,
        #[command(flatten)]
        dry_run: DryRun,
        #[command(subcommand)]
        command: Option<layer_release::Command>,
    },
}

/// Returns the guest of an auxiliary machine of a build.
fn auxiliary_target(
    client: &Client,
    build: &ConsoleTarget,
    name: &str,
) -> Result<ConsoleTarget, Failure> {
    let ConsoleTarget::Build(id) = build else {
        return Err(Failure::new(
            ExitStatus::Usage,
            "`--auxiliary` needs the number of a build",
        ));
    };
    let number = auxiliary::number(&client.build(*id)?, name)?;
    Ok(ConsoleTarget::Auxiliary(*id, number))
}

pub(super) fn run(command: &Command, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Console {
            guest,
            auxiliary,
            read_only,
        } => {
            let guest = match auxiliary {
                Some(name) => &auxiliary_target(client, guest, name)?,
                None => guest,
            };
            let access = if *read_only {
                Access::Read
            } else {
                Access::ReadWrite
            };
            console(client, guest, access, output).map(drop)
        }
        Command::Login {
            machine,
            sources,
            at,
            toolchain,
            resources,
        } => {
            let (machine, toolchain) = (machine.clone(), toolchain.clone());
            let (sources, resources) = (sources.clone(), resources.clone());
            let arguments =
                BuildArguments::interactive(machine, toolchain, sources, *at, resources);
            let build = submit::submit(client, &arguments, output)?;
            login(client, build.id, output)
        }
        Command::Resume { build, dry_run } => resume(client, *build, *dry_run, output),
        Command::Attach { build, dry_run } => attach(client, *build, *dry_run, output),
        Command::Release {
            command: Some(command),
            ..
        } => layer_release::run(command, client, output),
        Command::Release { build, dry_run, .. } => match build {
            Some(build) => release(client, *build, *dry_run, output),
            // The command line requires it.
            None => Err(Failure::new(ExitStatus::Usage, "name a build")),
        },
    }
}

fn resume(client: &Client, id: BuildId, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    if dry_run.enabled {
        if hold(client, id)? != Some(HoldKind::Breakpoint) {
            let text = format!("build {id} does not wait at a breakpoint");
            return Err(Failure::new(ExitStatus::Refused, text));
        }
        return output.plan(format_args!("resume build {id}"));
    }
    client.resume(id)?;
    output.status(format_args!("resumed build {id}"));
    Ok(())
}

fn release(client: &Client, id: BuildId, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    if dry_run.enabled {
        require_hold(client, id)?;
        return output.plan(format_args!("release the hold of build {id}"));
    }
    client.release(id)?;
    output.status(format_args!("released the hold of build {id}"));
    Ok(())
}

/// Boots a copy of a held guest and connects to its console.
fn attach(client: &Client, id: BuildId, dry_run: DryRun, output: &Output) -> Result<(), Failure> {
    if dry_run.enabled {
        require_hold(client, id)?;
        return output.plan(format_args!("boot a copy of the held guest of build {id}"));
    }
    let console = client.attach(id)?;
    output.status(format_args!(
        "booting a copy of the held guest of build {id}; `^]` disconnects and deletes it"
    ));
    connect(console)?;
    output.status("the copy is deleted");
    Ok(())
}

fn hold(client: &Client, id: BuildId) -> Result<Option<HoldKind>, Failure> {
    let build = client.build(id)?;
    Ok(build.interactive.held.map(|held| held.kind))
}

/// Fails unless a guest or a snapshot is held for a build.
fn require_hold(client: &Client, id: BuildId) -> Result<(), Failure> {
    match hold(client, id)? {
        Some(HoldKind::Guest | HoldKind::Snapshot) => Ok(()),
        Some(HoldKind::Breakpoint) | None => {
            let text = format!("nothing is held of build {id}");
            Err(Failure::new(ExitStatus::Refused, text))
        }
    }
}

/// Waits until a build has reached its breakpoint and connects to its console.
fn login(client: &Client, id: BuildId, output: &Output) -> Result<(), Failure> {
    let mut last_reason = String::new();
    loop {
        let build = client.build(id)?;
        let reason = &build.message;
        if let Some(outcome) = build.outcome {
            let text = format!("build {id} finished before its breakpoint: {outcome} {reason}");
            return Err(Failure::new(ExitStatus::Refused, text.trim_end()));
        }
        if build.interactive.held.is_some() {
            return match console(client, &ConsoleTarget::Build(id), Access::ReadWrite, output)? {
                terminal::End::Guest => outcome(client, id, output),
                terminal::End::User => {
                    output.status(format_args!(
                        "`buildhost resume {id}` continues the build, `buildhost log -f {id}` follows it"
                    ));
                    Ok(())
                }
            };
        }
        if build.state == State::Queued && !reason.is_empty() && *reason != last_reason {
            output.status(format_args!("build {id} waits {reason}"));
            last_reason.clone_from(reason);
        }
        sleep(POLL_INTERVAL);
    }
}

fn console(
    client: &Client,
    guest: &ConsoleTarget,
    access: Access,
    output: &Output,
) -> Result<terminal::End, Failure> {
    let console = client.console(guest, access)?;
    output.status(match access {
        Access::ReadWrite => "connected; `^]` disconnects",
        Access::Read => "connected read-only; `^]` disconnects",
    });
    let end = connect(console)?;
    output.status(match end {
        terminal::End::Guest => "the guest has ended",
        terminal::End::User => "disconnected; the guest keeps running",
    });
    Ok(end)
}

/// Waits for the outcome of a build whose guest has ended, and fails if the build has failed. A
/// build that is queued again, because its host or its agent failed, is not waited for.
pub(crate) fn outcome(client: &Client, id: BuildId, output: &Output) -> Result<(), Failure> {
    loop {
        let build = client.build(id)?;
        if let Some(outcome) = build.outcome {
            return follow::conclude(&build, outcome, output);
        }
        if build.state == State::Queued {
            output.status(format_args!(
                "build {id} waits {}; `buildhost log -f {id}` follows it",
                build.message
            ));
            return Ok(());
        }
        sleep(POLL_INTERVAL);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the connection to the console failed")]
struct ConnectionError(#[source] std::io::Error);

fn connect(console: Console) -> Result<terminal::End, Failure> {
    terminal::connect(console)
        .map_err(|error| Failure::new(ExitStatus::Failure, ConnectionError(error)))
}
