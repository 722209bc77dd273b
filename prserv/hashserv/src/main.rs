//! The program `hashserv`: the hash equivalence service.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main().into()
}
