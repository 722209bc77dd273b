//! `guest exec`: runs a command in a guest with the streams of this process.

use std::collections::BTreeMap;
use std::io::{self, Read};

use clap::Args;
use client::ExecError;
use config::BuildId;
use config::exec::{Command, CommandEnd, EnvironmentName};

use crate::exit_code::{self, ExitStatus, Failure};
use crate::options::GlobalOptions;

/// The arguments of `guest exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The number of the guest
    #[arg(value_name = "GUEST")]
    guest: BuildId,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// The working directory; by default the build's
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// The user, by name or number; by default root
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Give the command no input
    #[arg(short, long)]
    no_stdin: bool,
    /// Leave the output of the command out of the log of the build
    #[arg(long)]
    unlogged: bool,
    /// The program and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    fn command(&self) -> Command {
        let variables = self.env.iter().cloned();
        Command {
            command: self.command.clone(),
            env: variables
                .map(|(name, value)| (EnvironmentName(name), value))
                .collect::<BTreeMap<_, _>>(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            unlogged: self.unlogged,
        }
    }
}

pub(super) fn run(options: &GlobalOptions, arguments: &Exec) -> Result<(), Failure> {
    let client = options.client();
    let exec = client.and_then(|client| Ok(client.exec(arguments.guest, &arguments.command())?));
    // Every other code is one of the command.
    let exec = exec.map_err(|failure| Failure {
        status: ExitStatus::ExecRefused,
        ..failure
    })?;
    let stdin: Box<dyn Read + Send> = if arguments.no_stdin {
        Box::new(io::empty())
    } else {
        Box::new(io::stdin())
    };
    let end = exec.run(stdin, &mut io::stdout(), &mut io::stderr());
    match end.map_err(failure)? {
        CommandEnd::Exited(0) => Ok(()),
        end @ (CommandEnd::Exited(_) | CommandEnd::Signal(_)) => {
            exit_code::end_with(end.code().unwrap_or(u8::MAX))
        }
        CommandEnd::Lost | CommandEnd::Abandoned => {
            Err(Failure::new(ExitStatus::GuestLost, lost(arguments.guest)))
        }
    }
}

/// Returns the message for a command whose guest or agent has ended.
pub(super) fn lost(guest: BuildId) -> String {
    format!(
        "the command is lost: its guest or the agent has ended; `buildhost builds {guest}` tells more"
    )
}

fn failure(error: ExecError) -> Failure {
    Failure::new(ExitStatus::GuestLost, error)
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
