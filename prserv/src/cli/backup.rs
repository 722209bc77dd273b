//! `prserv backup`.

use std::path::PathBuf;

use prserv::store::sqlite::backup;

use super::Ending;

/// `prserv backup`'s arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SQLite file; it may be in use.
    #[arg(long, value_name = "FILE", default_value = "prserv.sqlite3")]
    db: PathBuf,

    /// Where the copy goes; it replaces what is there when it is whole.
    file: PathBuf,
}

/// Copies.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    backup(&arguments.db, &arguments.file)?;
    Ok(Ending::Done)
}
