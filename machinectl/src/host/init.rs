//! The verb that makes a volume: `init`.

use std::path::PathBuf;

use clap::Subcommand;
use store::init::{self, Init, Size};

use crate::{Failure, Rehearsal, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a directory a volume
    ///
    /// On btrfs there is little to do. Elsewhere a file beside the directory becomes
    /// a btrfs of its own and is mounted there, which is good for trying things out;
    /// after a reboot, the same call mounts it again.
    Init {
        /// The directory
        directory: PathBuf,
        /// How large the file may grow
        #[arg(long, default_value = "4G")]
        size: Size,
        #[command(flatten)]
        rehearsal: Rehearsal,
    },
}

pub(crate) fn run(verb: &Verb, voice: &Voice) -> Result<(), Failure> {
    let Verb::Init {
        directory,
        size,
        rehearsal,
    } = verb;
    let plan = init::plan(directory)?;
    if rehearsal.dry_run {
        return voice.would(plan.describe(directory, *size));
    }
    init::run(&plan, directory, *size)?;
    match plan {
        Init::Already => voice.say(format!("{} is a volume", directory.display())),
        plan => voice.say(format!("done: {}", plan.describe(directory, *size))),
    }
    Ok(())
}
