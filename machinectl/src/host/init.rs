//! `init`: a new volume.

use std::path::PathBuf;

use clap::Subcommand;
use store::init::{self, InitPlan, Size};

use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a volume
    ///
    /// On btrfs, this creates the directory. On another file system, it creates a btrfs in a file
    /// beside the directory and mounts it with nosuid and nodev, which is good enough for a first
    /// try. After a reboot, the same command mounts it again. Only root may enter a new volume.
    Init {
        /// The directory of the volume
        directory: PathBuf,
        /// The maximum size of the file
        #[arg(long, default_value = "4G")]
        size: Size,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    let Command::Init {
        directory,
        size,
        dry_run,
    } = command;
    let plan = init::plan(directory)?;
    if dry_run.enabled {
        return output.plan(plan.describe(directory, *size));
    }
    init::run(&plan, directory, *size)?;
    let directory = directory.display();
    output.status(match plan {
        InitPlan::Nothing => format!("{directory} is a volume already"),
        InitPlan::CreateDirectory => format!("created volume {directory}"),
        InitPlan::Mount(file) => format!("mounted volume {directory} from {}", file.display()),
        InitPlan::CreateFile(file) => format!("created volume {directory} in {}", file.display()),
    });
    Ok(())
}
