//! The options that several commands share.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use client::HostAddress;
use config::{ContextName, NameError};
use store::default_paths;

/// The agent's socket if nothing else is said.
const SOCKET: &str = "/run/buildhost/agent.sock";
/// The variable by which a shell asks for completions.
pub(crate) const COMPLETION_VARIABLE: &str = "BUILDHOST_COMPLETE";
/// The ID of `--color`.
pub(crate) const COLOR_ID: &str = "color";
/// The ID of `--host`, which is unlike that of the hosts of `push` and `pull`.
pub(crate) const HOST_ID: &str = "agent_host";

/// The ID of `--farm`.
pub(crate) const FARM_ID: &str = "farm";

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
    /// The host of the agent: `https://HOST:PORT`, `ssh:[USER@]HOST`, a context, or `local`
    #[arg(
        id = HOST_ID,
        long = "host",
        global = true,
        value_name = "HOST",
        env = "BUILDHOST_HOST",
        hide_env_values = true
    )]
    pub(crate) host: Option<HostOption>,
    /// The farm: `https://HOST:PORT` of one of its coordinators, or a context
    #[arg(
        id = FARM_ID,
        long = "farm",
        global = true,
        value_name = "FARM",
        env = "BUILDHOST_FARM",
        hide_env_values = true
    )]
    pub(crate) farm: Option<HostOption>,
    /// The file with the token for an agent on the network, mode 0600, or - for standard input
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BUILDHOST_TOKEN_FILE",
        hide_env_values = true
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// The certificates of the authorities to trust instead of those of the system
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "BUILDHOST_CA_FILE",
        hide_env_values = true
    )]
    pub(crate) ca_file: Option<PathBuf>,
    /// The agent's socket on its host; by default /run/buildhost/agent.sock
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "BUILDHOST_SOCKET",
        hide_env_values = true
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Print JSON, also for errors
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no messages but errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Print tables without headings
    #[arg(long, global = true)]
    pub(crate) no_legend: bool,
    /// Color the states and outcomes of builds: auto (on a terminal, unless NO_COLOR is set), always
    /// or never
    #[arg(id = COLOR_ID, long, global = true, value_name = "WHEN", value_enum)]
    #[arg(default_value_t, hide_possible_values = true)]
    pub(crate) color: Color,
}

/// The use of colors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless the user wants none.
    #[default]
    Auto,
    /// Also in files and pipes.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    /// Returns true if colors are printed. `is_unwanted` is the variable `NO_COLOR`.
    pub(crate) fn applies(self, is_terminal: bool, is_unwanted: bool) -> bool {
        match self {
            Self::Auto => is_terminal && !is_unwanted,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl GlobalOptions {
    /// Returns the agent's socket on this host.
    pub(crate) fn socket(&self) -> &Path {
        self.socket.as_deref().unwrap_or(Path::new(SOCKET))
    }
}

/// The value of `--host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostOption {
    /// An address.
    Address(HostAddress),
    /// A context.
    Context(ContextName),
}

impl FromStr for HostOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(error) if text.contains(':') => Err(error.to_string()),
            Err(_) => text
                .parse()
                .map(Self::Context)
                .map_err(|error: NameError| error.to_string()),
        }
    }
}

impl fmt::Display for HostOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Context(name) => name.fmt(f),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_for_terminals_unless_something_else_is_said() {
        assert!(Color::Auto.applies(true, false));
        assert!(!Color::Auto.applies(true, true));
        assert!(!Color::Auto.applies(false, false));
        assert!(Color::Always.applies(false, true));
        assert!(!Color::Never.applies(true, false));
    }

    #[test]
    fn a_host_is_an_address_or_a_context() {
        for (text, is_context) in [("farm", true), ("ssh:h", false), ("local", false)] {
            let host: HostOption = text.parse().unwrap();
            assert_eq!(matches!(host, HostOption::Context(_)), is_context);
            assert_eq!(host.to_string(), text);
        }
        for text in ["ftp://h", "", "a b", "h:8000"] {
            assert!(text.parse::<HostOption>().is_err(), "{text}");
        }
    }
}
