//! Completions and manual pages. They come from the command tree and carry the name by which
//! the program was called.

use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::Shell;

use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Manual {
        /// The directory
        directory: PathBuf,
    },
}

pub(crate) fn run(
    command: &Command,
    mut tree: clap::Command,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        Command::Completions { shell } => {
            let name = tree.get_name().to_owned();
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut tree, name, &mut script);
            output.print(&String::from_utf8_lossy(&script))
        }
        Command::Manual { directory } => clap_mangen::generate_to(tree, directory)
            .map_err(|error| Failure::new(ExitStatus::Failure, error)),
    }
}
