//! The commands that transfer revisions between hosts: `push`, `pull`.

mod receive;
mod transfer;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::MachineName;
use store::Volume;
use store::send::{RemoteHost, SshCommand};

use super::retention::Retention;
use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use transfer::Transfer;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send the current revision of a machine to a remote host and make it current there
    ///
    /// Only the difference from the newest revision that both hosts have is sent. The remote host
    /// verifies the content; if anything fails, nothing changes there. A transfer that was cut
    /// continues when the command is repeated.
    Push {
        #[command(flatten)]
        place: Place,
        /// First create the machine's next revision from this working subvolume
        #[arg(long, value_name = "SUBVOLUME")]
        from: Option<PathBuf>,
        /// Send everything, even if the remote host seems to have a part of it
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        remote: RemoteOptions,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Fetch the current revision of a machine from a remote host and make it current here
    Pull {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        remote: RemoteOptions,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Receive a revision from `push` on another host, over standard input and output
    #[command(hide = true)]
    Receive {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        #[command(flatten)]
        retention: Retention,
    },
}

/// A machine and the remote host.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The machine
    #[arg(value_name = "MACHINE")]
    name: MachineName,
    /// The remote host
    #[arg(value_name = "[USER@]HOST", value_parser = host)]
    host: String,
}

/// The way to the program on the remote host.
#[derive(Debug, Args)]
pub(crate) struct RemoteOptions {
    /// The volume on the remote host; by default the default volume there
    #[arg(id = "remote_volume", long = "remote-volume", alias = "far-volume")]
    #[arg(value_name = "DIR")]
    volume: Option<PathBuf>,
    /// The program to run on the remote host
    #[arg(id = "remote_program", long = "remote-program", alias = "far-program")]
    #[arg(value_name = "PROGRAM", default_value = "buildhost")]
    program: String,
    /// The ssh command with its options, quoted as for a shell
    #[arg(
        long,
        value_name = "COMMAND",
        default_value = "ssh",
        env = "BUILDHOST_SSH",
        hide_env_values = true
    )]
    ssh: SshCommand,
}

impl RemoteOptions {
    fn host(&self, host: &str) -> RemoteHost {
        RemoteHost {
            ssh: self.ssh.clone(),
            host: host.to_owned(),
            program: self.program.clone(),
            volume: self.volume.clone(),
        }
    }
}

/// Parses a host. ssh checks the rest; the text must not look like an option or two words.
fn host(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
        return Err("expected HOST or USER@HOST");
    }
    Ok(text.to_owned())
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = &Volume::open(&options.volume)?;
    match command {
        Command::Push {
            place,
            from,
            full,
            retention,
            remote,
            dry_run,
        } => {
            let transfer = Transfer {
                volume,
                name: &place.name,
                remote: &remote.host(&place.host),
                retention: *retention,
                output,
            };
            transfer.push(from.as_deref(), *full, *dry_run)
        }
        Command::Pull {
            place,
            retention,
            remote,
            dry_run,
        } => {
            let transfer = Transfer {
                volume,
                name: &place.name,
                remote: &remote.host(&place.host),
                retention: *retention,
                output,
            };
            transfer.pull(*dry_run)
        }
        Command::Receive { name, retention } => receive::run(volume, name, *retention, output),
    }
}
