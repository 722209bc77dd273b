//! `prserv`: the PR service as a program.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    cli::start_logging();
    cli::run(arguments).into()
}
