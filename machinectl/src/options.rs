//! The options that several commands share.

use std::path::PathBuf;

use clap::Args;
use store::default_paths;

/// The heading of [`GlobalOptions`] in `--help`.
pub(crate) const GLOBAL_HEADING: &str = "Global options";

/// The options that every command accepts, before or after its name.
///
/// `--help` of a command shows only those that it uses; see [`crate::help`].
#[derive(Debug, Args)]
#[command(next_help_heading = GLOBAL_HEADING)]
pub(crate) struct GlobalOptions {
    /// The volume: the directory of the machines
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BUILDHOST_VOLUME",
        hide_env_values = true
    )]
    #[arg(default_value_os_t = default_paths::volume())]
    pub(crate) volume: PathBuf,
    /// The directory of the toolchains
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BUILDHOST_TOOLCHAINS",
        hide_env_values = true
    )]
    #[arg(default_value_os_t = default_paths::toolchains())]
    pub(crate) toolchains: PathBuf,
    /// The agent's socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "BUILDHOST_SOCKET",
        hide_env_values = true
    )]
    #[arg(default_value = "/run/buildhost/agent.sock")]
    pub(crate) socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no messages but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print tables without headings
    #[arg(long, global = true)]
    pub(crate) no_legend: bool,
}

/// The option of commands that change something.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DryRun {
    /// Print the plan and change nothing
    #[arg(id = "dry_run", long = "dry-run")]
    pub(crate) enabled: bool,
}

/// The option of commands that submit a build.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Follow {
    /// Show the log until the build has finished; if it fails, the exit code tells how (30 to 33)
    #[arg(id = "follow", short = 'f', long = "follow")]
    pub(crate) enabled: bool,
}
