//! The command line over the store and over the agent.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run().into()
}
