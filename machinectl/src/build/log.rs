//! `log`: the log of a build, or the output of its console.

use std::io;

use clap::{ArgAction, Subcommand};
use client::{Client, LogSelection};
use config::BuildId;

use super::auxiliary;
use super::stamped_lines::StampedLines;
use super::{follow, unless_closed};
use crate::exit_code::Failure;
use crate::options::Follow;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the log of a build
    Log {
        /// The build
        build: BuildId,
        /// Print the log of an earlier attempt, which failed and was repeated
        #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
        attempt: Option<u32>,
        /// Print what the guest's console has shown instead of the log
        #[arg(long, action = ArgAction::SetTrue, conflicts_with_all = ["follow", "timestamps"])]
        console: bool,
        /// Print what the console of an auxiliary machine has shown instead of the log; NAME is that
        /// of its environment or its machine
        #[arg(long, value_name = "NAME", conflicts_with_all = ["follow", "timestamps", "console"])]
        auxiliary: Option<String>,
        /// Print before each line the time at which it arrived, `-` if that is not known
        #[arg(short, long)]
        timestamps: bool,
        #[command(flatten)]
        follow: Follow,
    },
}

pub(super) fn run(command: &Command, client: &Client, output: &Output) -> Result<(), Failure> {
    let Command::Log {
        build,
        attempt,
        console,
        auxiliary,
        timestamps,
        follow,
    } = command;
    let auxiliary = match auxiliary {
        Some(name) => Some(auxiliary::number(&client.build(*build)?, name)?),
        None => None,
    };
    let selected = LogSelection {
        attempt: *attempt,
        console: *console,
        auxiliary,
    };
    if follow.enabled {
        return follow::run(client, *build, *timestamps, output);
    }
    let stdout = &mut io::stdout();
    if *timestamps {
        let mut lines = StampedLines::default();
        lines.copy(client, *build, selected, stdout)?;
        return Ok(());
    }
    unless_closed(client.copy_log(*build, selected, 0, stdout))
}
