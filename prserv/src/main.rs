//! `prserv`: the PR service as a program.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::start_logging();
    cli::main().into()
}
