//! The commands that transfer revisions between hosts: `push`, `pull`.

mod provide;
mod pull;
mod push;
mod receive;

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use config::{MachineName, SshHost};
use serde::de::DeserializeOwned;
use store::send::RemoteHost;
use store::send::session::{self, Greeting};
use store::stream::{StreamError, TimeoutReader};
use store::{StoreError, Volume};
use sys::ssh::SshCommand;

use super::note::NoteOption;
use super::retention::Retention;
use super::trial::TrialOption;
use crate::exit_code::Failure;
use crate::options::{DryRun, GlobalOptions};
use crate::output::Output;
use push::Push;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send the current revision of a machine to a remote host and make it current there
    ///
    /// Only the difference from the newest revision that both hosts have is sent. The remote host
    /// verifies the content; if anything fails, nothing changes there. A transfer that was cut
    /// continues when the command is repeated.
    Push {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The remote host
        #[arg(value_name = "[USER@]HOST")]
        host: SshHost,
        /// First create the machine's next revision from this working subvolume
        #[arg(long, value_name = "SUBVOLUME")]
        from: Option<PathBuf>,
        /// Send everything, even if the remote host seems to have a part of it
        #[arg(long)]
        full: bool,
        #[command(flatten)]
        note: NoteOption,
        #[command(flatten)]
        trial: TrialOption,
        #[command(flatten)]
        retention: Retention,
        #[command(flatten)]
        remote: RemoteOptions,
        #[command(flatten)]
        dry_run: DryRun,
    },
    /// Fetch the newest revision of a machine from remote hosts and make it current here
    ///
    /// All hosts are asked. The newest revision that is current on any of them is fetched from the
    /// first one that has it; if that one fails, from the next one. Only the difference from the
    /// newest revision that both hosts have is fetched, and its content is verified. A transfer that
    /// was cut continues when the command is repeated.
    Pull {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
        /// The remote hosts, nearest first
        #[arg(value_name = "[USER@]HOST", required = true)]
        hosts: Vec<SshHost>,
        #[command(flatten)]
        trial: TrialOption,
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
        trial: TrialOption,
        #[command(flatten)]
        retention: Retention,
    },
    /// Send a revision to `pull` on another host, over standard input and output
    #[command(hide = true)]
    Provide {
        /// The machine
        #[arg(value_name = "MACHINE")]
        name: MachineName,
    },
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
    fn host(&self, host: &SshHost) -> RemoteHost {
        RemoteHost {
            ssh: self.ssh.clone(),
            host: host.to_string(),
            program: self.program.clone(),
            volume: self.volume.clone(),
        }
    }
}

pub(crate) fn run(
    command: &Command,
    options: &GlobalOptions,
    output: &Output,
) -> Result<(), Failure> {
    let volume = &Volume::open(&options.volume)?;
    match command {
        Command::Push {
            name,
            host,
            from,
            full,
            note,
            trial,
            retention,
            remote,
            dry_run,
        } => {
            let push = Push {
                volume,
                name,
                remote: &remote.host(host),
                trial: *trial,
                retention: *retention,
                output,
            };
            push.run(from.as_deref(), *full, note, *dry_run)
        }
        Command::Pull {
            name,
            hosts,
            trial,
            retention,
            remote,
            dry_run,
        } => {
            let hosts: Vec<_> = hosts.iter().map(|host| remote.host(host)).collect();
            let plan = (*trial, *retention, *dry_run);
            pull::run(volume, name, &hosts, plan, output)
        }
        Command::Receive {
            name,
            trial,
            retention,
        } => receive::run(volume, name, *trial, *retention, output),
        Command::Provide { name } => provide::run(volume, name),
    }
}

/// Describes a machine to the program on another host, which has started this one, and reads its
/// decision; returns `None` if it ends without one. What follows is read from the second value.
fn greet<T: DeserializeOwned>(
    volume: &Volume,
    name: &MachineName,
) -> Result<Option<(T, TimeoutReader)>, StoreError> {
    let greeting = Greeting::of(volume, name)?;
    session::write_line(&mut io::stdout().lock(), &greeting).map_err(StreamError::Write)?;
    let mut input = TimeoutReader::pipe(io::stdin())?.with_timeout(session::DECISION_TIMEOUT);
    let decision = session::read_line(&mut input).map_err(StreamError::Read)?;
    Ok(decision.map(|it| (it, input)))
}
