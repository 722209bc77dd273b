//! What may be asked on the command line, and how an answer is given: data on
//! stdout, talk on stderr, the meaning in the exit code.
//!
//! A new family of verbs is a module with an enum `Verb` and a function `run`; it
//! gets one flattened variant in [`Command`] and one arm in [`act`].

mod build;
mod exit_code;
mod host;
mod machine;
mod manual;
mod output;
mod schedule;
mod systemd;
mod toaster;
mod token;
mod toolchain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub(crate) use exit_code::{Ending, Failure};
pub(crate) use output::{Table, Voice};

/// Keeps the images of build machines and what is installed in them.
#[derive(Debug, Parser)]
#[command(name = "machinectl", version, max_term_width = 100)]
#[command(after_help = exit_code::HELP)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every verb understands.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The directory that holds the machines' directories
    #[arg(long, global = true, value_name = "DIR", env = "BUILDHOST_VOLUME")]
    #[arg(default_value = "/build/machines/default")]
    pub(crate) volume: PathBuf,
    /// The directory that holds the toolchains
    #[arg(long, global = true, value_name = "DIR", env = "BUILDHOST_TOOLCHAINS")]
    #[arg(default_value = "/build/tftp/toolchains")]
    pub(crate) toolchains: PathBuf,
    /// The agent's socket
    #[arg(long, global = true, value_name = "PATH", env = "BUILDHOST_SOCKET")]
    #[arg(default_value = "/run/buildhost/agent.sock")]
    pub(crate) socket: PathBuf,
    /// Print JSON, for other programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say nothing but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print tables without their headings
    #[arg(long, global = true)]
    pub(crate) no_legend: bool,
}

/// For verbs that change something.
#[derive(Debug, Args)]
pub(crate) struct Rehearsal {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Volume(host::init::Verb),
    #[command(flatten)]
    Arrival(machine::ingest::Verb),
    #[command(flatten)]
    Machines(machine::Verb),
    #[command(flatten)]
    Revisions(machine::revisions::Verb),
    #[command(flatten)]
    Far(machine::remote::Verb),
    #[command(flatten)]
    Doctor(host::doctor::Verb),
    /// Add, list and delete toolchains
    #[command(subcommand)]
    Toolchain(toolchain::Verb),
    #[command(flatten)]
    Builds(build::Verb),
    #[command(flatten)]
    Again(build::rebuild::Verb),
    /// Ask for builds by the clock: add, list, show, remove and run schedules
    #[command(subcommand)]
    Schedule(schedule::Verb),
    /// Add, list and remove tokens for those who use the agent over the network
    #[command(subcommand)]
    Token(token::Verb),
    #[command(flatten)]
    Toaster(toaster::Verb),
    #[command(flatten)]
    Life(build::interactive::Verb),
    #[command(flatten)]
    Queue(host::queue::Verb),
    #[command(flatten)]
    Manual(manual::Verb),
}

fn main() -> ExitCode {
    run().into()
}

/// Does what the command line asks for.
fn run() -> Ending {
    systemd::hand_over();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not faults.
            let ending = if error.use_stderr() {
                Ending::Usage
            } else {
                Ending::Done
            };
            return if error.print().is_ok() {
                ending
            } else {
                Ending::Failed
            };
        }
    };
    let voice = Voice::new(&cli.common);
    match act(&cli.command, &cli.common, &voice) {
        Ok(()) => Ending::Done,
        Err(failure) => {
            voice.error(failure.error.as_ref());
            failure.ending
        }
    }
}

fn act(command: &Command, common: &Common, voice: &Voice) -> Result<(), Failure> {
    if matches!(command, Command::Arrival(_) | Command::Far(_))
        && !voice.quiet()
        && let Some(outdated) = store::btrfs_progs::outdated()
    {
        voice.warn(&outdated);
    }
    match command {
        Command::Volume(verb) => host::init::run(verb, voice),
        Command::Arrival(verb) => machine::ingest::run(verb, common, voice),
        Command::Machines(verb) => machine::run(verb, common, voice),
        Command::Revisions(verb) => machine::revisions::run(verb, common, voice),
        Command::Far(verb) => machine::remote::run(verb, common, voice),
        Command::Doctor(verb) => host::doctor::run(verb, common, voice),
        Command::Toolchain(verb) => toolchain::run(verb, common, voice),
        Command::Builds(verb) => build::run(verb, common, voice),
        Command::Again(verb) => build::rebuild::run(verb, common, voice),
        Command::Life(verb) => build::interactive::run(verb, common, voice),
        Command::Queue(verb) => host::queue::run(verb, common, voice),
        Command::Schedule(verb) => schedule::run(verb, common, voice),
        Command::Token(verb) => token::run(verb, voice),
        Command::Toaster(verb) => toaster::run(verb, common, voice),
        Command::Manual(verb) => manual::run(verb, voice),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
