//! The program `prserv`: the PR service and its tools.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    prserv::logging::start(None);
    cli::main().into()
}
