//! The command line of Buildhost: data on stdout, messages on stderr, and stable exit codes.
//!
//! [`cli`] holds the command tree. Each of its branches is a module with an enum `Command` and
//! a function `run`; [`help`] groups the commands for `--help`.

mod build;
mod cache;
mod cli;
mod completion;
mod context;
mod controllers;
mod exit_code;
mod farm;
mod feed;
mod guest;
mod help;
mod host;
mod layer;
mod machine;
mod manual;
mod notify;
mod options;
mod output;
mod program;
mod project;
mod reach;
mod relay;
mod release;
mod schedule;
mod secret;
mod systemd;
mod target;
mod toaster;
mod token;
mod token_file;
mod toolchain;

use std::process::ExitCode;

use program::Program;

fn main() -> ExitCode {
    if completion::answer(Program::called()) {
        return ExitCode::SUCCESS;
    }
    cli::run().into()
}
