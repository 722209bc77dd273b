//! What an installation takes from the command line itself: completions and manual
//! pages. They carry the name that we were called by.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;

use crate::{Cli, Ending, Failure, Voice};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print what completes this command line in a shell
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

pub(crate) fn run(verb: &Verb, voice: &Voice) -> Result<(), Failure> {
    let name = called();
    match verb {
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), name, &mut script);
            voice.print(&String::from_utf8_lossy(&script))
        }
        Verb::Manual { directory } => {
            // A page needs a name that lives as long as we do.
            let command = Cli::command().name(name.leak() as &str);
            clap_mangen::generate_to(command, directory)
                .map_err(|error| Failure::new(Ending::Failed, error))
        }
    }
}

/// The name that we were called by.
fn called() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name();
    name.map_or_else(
        || "machinectl".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}
