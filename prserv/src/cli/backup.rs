//! `prserv backup`.

use std::path::PathBuf;

use prserv::store::sqlite::backup;

use super::ExitStatus;

/// The arguments of `prserv backup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SQLite file. It may be in use.
    #[arg(long, value_name = "FILE", default_value = "prserv.sqlite3")]
    db: PathBuf,

    /// The file to write. An existing file is replaced when the copy is complete.
    file: PathBuf,
}

/// Copies the database.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    backup(&arguments.db, &arguments.file)?;
    Ok(ExitStatus::Success)
}
