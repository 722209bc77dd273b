//! The command line: its arguments, the log and the exit status.

mod bitbake;
mod serve;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use hashserv::store::StoreError;
use linerpc::logging;
use sys::error_report::chain;

/// Hash equivalence service for BitBake: tells which tasks have equivalent output.
#[derive(Debug, Parser)]
#[command(name = "hashserv", version, after_help = EXIT_STATUS_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server in the foreground and log to stderr.
    Serve(Box<serve::Arguments>),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

const EXIT_STATUS_HELP: &str = "\
Under the name `bitbake-hashserv` the program has the command line of BitBake's server.

Exit status: 0 success, 1 failure, 2 wrong usage, 3 refused (the database is missing or not one of \
hash equivalence).";

/// The exit status of the process. The numbers are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Success = 0,
    Failure = 1,
    Refused = 3,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Executes the command line and prints its error.
pub(crate) fn main() -> ExitStatus {
    let result = if bitbake::is_invoked(env::args_os().next()) {
        bitbake::run(bitbake::Arguments::parse())
    } else {
        run(Arguments::parse())
    };
    result.unwrap_or_else(|error| {
        report(error.as_ref());
        exit_status(&error)
    })
}

fn run(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    match arguments.command {
        Command::Serve(arguments) => {
            logging::start(None);
            serve::run(&arguments)
        }
        Command::Manual { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory)?;
            Ok(ExitStatus::Success)
        }
    }
}

fn exit_status(error: &anyhow::Error) -> ExitStatus {
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Missing { .. } | StoreError::NoTables { .. }) => ExitStatus::Refused,
        _ => ExitStatus::Failure,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the only place where an error is printed"
)]
fn report(error: &dyn Error) {
    eprintln!("hashserv: {}", chain(error));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_are_valid() {
        Arguments::command().debug_assert();
        bitbake::Arguments::command().debug_assert();
    }
}
