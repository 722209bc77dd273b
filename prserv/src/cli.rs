//! The command line: its arguments, the log and the exit status.

mod serve;

mod daemon;

mod bitbake;

mod pid_file;

mod check;

mod proxy;

mod backend;

mod client;

mod transfer;

mod list;

mod forget;

mod backup;

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use prserv::store::StoreError;
use sys::error_report::chain;

/// PR service for BitBake: assigns package revisions that never decrease.
#[derive(Debug, Parser)]
#[command(name = "prserv", version, after_help = EXIT_STATUS_HELP)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server in the foreground and log to stderr.
    Serve(serve::Arguments),
    /// Check the database for unusable rows and for values that were assigned twice.
    Check(check::Arguments),
    /// Export the rows in the format of `bitbake-prserv-tool export`.
    Export(transfer::Export),
    /// Import a file of `bitbake-prserv-tool export` or `prserv export`.
    Import(transfer::Import),
    /// Import the greatest value of each tuple from a dump of BitBake's `migrate_localcount` class.
    MigrateLocalcount(transfer::Import),
    /// Import the rows of a local database into a central server without lowering any value there.
    Sync(transfer::Sync),
    /// List the packages with their greatest value.
    List(list::List),
    /// Show all rows of a version.
    Show(list::Show),
    /// Remove rows of a package, after which its values may start again from a smaller one.
    ///
    /// A package manager does not replace a package by one with a smaller revision. Remove the
    /// packages of this version from all feeds first, also from the build directories that share
    /// their state (sstate), and do not synchronize older databases into this one again.
    Forget(forget::Arguments),
    /// Copy a consistent snapshot of the database, which may be in use.
    Backup(backup::Arguments),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

const EXIT_STATUS_HELP: &str = "\
Exit status: 0 success, 1 failure, 2 wrong usage, 3 refused (the database is in use, missing, \
not a PR database or on a file system that hosts share), 4 `check` found defects that it has not repaired.";

/// The exit status of the process. The numbers are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Success = 0,
    Failure = 1,
    Refused = 3,
    DefectsFound = 4,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// Executes the command line and prints its error.
pub(crate) fn main() -> ExitStatus {
    let arguments: Vec<String> = env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let result = if bitbake::is_invoked(&arguments) {
        bitbake::run(&bitbake::Arguments::parse())
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
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::MigrateLocalcount(arguments) => transfer::migrate_localcount(&arguments),
        Command::Sync(arguments) => transfer::sync(&arguments),
        Command::List(arguments) => list::list(&arguments),
        Command::Show(arguments) => list::show(&arguments),
        Command::Forget(arguments) => forget::run(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Manual { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory)?;
            Ok(ExitStatus::Success)
        }
    }
}

fn exit_status(error: &anyhow::Error) -> ExitStatus {
    match error.downcast_ref::<StoreError>() {
        Some(
            StoreError::InUse { .. }
            | StoreError::Missing { .. }
            | StoreError::NoTable { .. }
            | StoreError::SharedFileSystem { .. },
        ) => ExitStatus::Refused,
        _ => ExitStatus::Failure,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the only place where an error is printed"
)]
fn report(error: &dyn Error) {
    eprintln!("prserv: {}", chain(error));
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_lines_are_valid() {
        Arguments::command().debug_assert();
        bitbake::Arguments::command().debug_assert();
    }
}
