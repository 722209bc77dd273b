//! `init`: a new volume.

use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueEnum};
use store::init::{self, BootMount, InitPlan, Size};

use crate::exit_code::Failure;
use crate::options::DryRun;
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a volume
    ///
    /// On btrfs, this creates the directory. On another file system, it creates a btrfs in a file
    /// beside the directory and mounts it with nosuid and nodev, which is good enough for a first
    /// try. If systemd runs, a unit in /etc/systemd/system mounts the file at each boot. The same
    /// command can be repeated: it mounts the file again. Only root may enter a new volume.
    Init {
        /// The directory of the volume
        directory: PathBuf,
        /// The maximum size of the file
        ///
        /// The units K, M, G and T, also written KiB or k, are powers of 1024; KB, MB, GB and TB
        /// are powers of 1000. `20G`, `1.5 GiB` and `500GB` are sizes.
        #[arg(long, default_value = "4G")]
        size: Size,
        /// The way to mount the file at each boot; by default a unit if systemd runs, or else none
        #[arg(long, value_name = "HOW")]
        at_boot: Option<AtBoot>,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// The values of `--at-boot`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AtBoot {
    /// A unit of systemd
    Unit,
    /// A line in /etc/fstab
    Fstab,
    /// Nothing
    None,
}

impl From<AtBoot> for BootMount {
    fn from(at_boot: AtBoot) -> Self {
        match at_boot {
            AtBoot::Unit => Self::Unit,
            AtBoot::Fstab => Self::Fstab,
            AtBoot::None => Self::None,
        }
    }
}

pub(super) fn run(command: &Command, output: &Output) -> Result<(), Failure> {
    let Command::Init {
        directory,
        size,
        at_boot,
        dry_run,
    } = command;
    let plan = init::plan(directory)?;
    let at_boot = at_boot.map_or_else(BootMount::default_here, BootMount::from);
    if dry_run.enabled {
        output.plan(plan.describe(directory, *size))?;
        let path = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
        return match at_boot.name(&path).filter(|_| plan.file().is_some()) {
            Some(name) => output.plan(format_args!("mount it at each boot by {name}")),
            None => Ok(()),
        };
    }
    init::run(&plan, directory, *size)?;
    let shown = directory.display();
    output.status(match &plan {
        InitPlan::Nothing | InitPlan::Mounted(_) => format!("{shown} is a volume already"),
        InitPlan::CreateDirectory => format!("created volume {shown}"),
        InitPlan::Mount(file) => format!("mounted volume {shown} from {}", file.display()),
        InitPlan::CreateFile(file) => format!("created volume {shown} in {}", file.display()),
    });
    match plan.file() {
        Some(file) => mount_at_boot(at_boot, file, directory, output),
        None => Ok(()),
    }
}

fn mount_at_boot(
    at_boot: BootMount,
    file: &Path,
    directory: &Path,
    output: &Output,
) -> Result<(), Failure> {
    at_boot.establish(file, directory)?;
    let path = directory.canonicalize();
    let path = path.unwrap_or_else(|_| directory.to_owned());
    output.status(match at_boot.name(&path) {
        Some(name) => format!("{name} mounts it at each boot"),
        None => {
            "nothing mounts it at the next boot: repeat the command then, or use `--at-boot fstab`"
                .to_owned()
        }
    });
    Ok(())
}
