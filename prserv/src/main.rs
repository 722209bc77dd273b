//! The program `prserv`: the PR service and its tools.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::start_logging();
    cli::main().into()
}
