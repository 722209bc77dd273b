//! The command line: what may be said, and what the shell is told at the end.

mod serve;

mod listener;

mod daemon;

mod bitbake;

mod check;

mod proxy;

mod place;

mod transfer;

mod list;

mod backup;

use std::env;
use std::error::Error;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use prserv::store::StoreError;
use tracing_subscriber::EnvFilter;

/// The PR service: gives every build of a package a revision that only goes up.
#[derive(Debug, Parser)]
#[command(name = "prserv", version, after_help = ENDINGS)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve BitBake's PR protocol in the foreground, logging to stderr.
    Serve(serve::Arguments),
    /// Look for rows that no server can use, and for values given twice.
    Check(check::Arguments),
    /// Write a file as `bitbake-prserv-tool export` does.
    Export(transfer::Export),
    /// Read a file of `bitbake-prserv-tool`, or of `prserv export`.
    Import(transfer::Import),
    /// Import what BitBake's migrate_localcount class has dumped, the greatest of each.
    MigrateLocalcount(transfer::Import),
    /// Tell a central server what this database has given, without lowering anything there.
    Sync(transfer::Sync),
    /// List the packages.
    List(list::List),
    /// Show all rows of a version.
    Show(list::Show),
    /// Copy the database, in use or not, as it is at one instant.
    Backup(backup::Arguments),
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Manual { directory: PathBuf },
}

const ENDINGS: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 3 refused (the database is in use, missing, or not \
ours), 4 the check found something.";

/// What the shell sees. The numbers are a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done = 0,
    Failed = 1,
    Refused = 3,
    Found = 4,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// Logs to stderr, as `RUST_LOG` says, else what an operator wants to know.
pub(crate) fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && env::var_os("NO_COLOR").is_none())
        .init();
}

/// Does what the command line says, and prints why it could not.
pub(crate) fn main() -> Ending {
    let words: Vec<String> = env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let result = if bitbake::is_meant(&words) {
        bitbake::run(&bitbake::Arguments::parse())
    } else {
        run(Arguments::parse())
    };
    match result {
        Ok(ending) => ending,
        Err(error) => {
            report(error.as_ref());
            ending(&error)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Ending> {
    match arguments.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Export(arguments) => transfer::export(&arguments),
        Command::Import(arguments) => transfer::import(&arguments),
        Command::MigrateLocalcount(arguments) => transfer::migrate_localcount(&arguments),
        Command::Sync(arguments) => transfer::sync(&arguments),
        Command::List(arguments) => list::list(&arguments),
        Command::Show(arguments) => list::show(&arguments),
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Manual { directory } => {
            clap_mangen::generate_to(Arguments::command(), directory)?;
            Ok(Ending::Done)
        }
    }
}

fn ending(error: &anyhow::Error) -> Ending {
    match error.downcast_ref::<StoreError>() {
        Some(
            StoreError::InUse { .. } | StoreError::Missing { .. } | StoreError::NoTable { .. },
        ) => Ending::Refused,
        _ => Ending::Failed,
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where an error is printed"
)]
fn report(error: &dyn Error) {
    eprint!("prserv: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprint!(": {cause}");
        source = cause.source();
    }
    eprintln!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_lines_are_sound() {
        Arguments::command().debug_assert();
        bitbake::Arguments::command().debug_assert();
    }
}
