//! The records of builds: one SQLite file in the state directory.
//!
//! A change is on disk when the call that makes it returns. Each build is one row;
//! its lists are JSON in a column, but for the names by which it is found.

mod database;
mod format;
mod once;
mod reading;
mod rows;
mod writing;

mod ended;
mod health;
mod list;
mod removal;
mod schedules;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::task::{Digest, Source};
use config::{MachineName, ToolchainName};
use rusqlite::Connection;

use crate::telemetry::events::Events;
use crate::telemetry::metrics::Metrics;
use database::Database;
use format::MIGRATIONS;

pub use ended::Ended;
pub use health::Health;
pub use once::{Once, Submitted};
pub use removal::{Removal, Summary};
pub use schedules::Added;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The database refused.
    #[error("cannot use the records in {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The file is from a later version of ours.
    #[error(
        "{path} was written by a newer buildhost-agent (format {found}, this one knows {known})"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: usize,
        /// The newest format that we know.
        known: usize,
    },
    /// The thread that was to do the work died.
    #[error("the records could not be reached")]
    Gone,
}

/// The records; cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    database: Database,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

impl Records {
    /// Opens the file, makes it when it is not there, and brings its format up to date.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let fault = |source| RecordsError::Database {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(fault)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(fault)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(fault)?;
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(fault)?;
        let format: u32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fault)?;
        let found = usize::try_from(format).unwrap_or(usize::MAX);
        let known = MIGRATIONS.len();
        if found > known {
            let path = path.to_owned();
            return Err(RecordsError::Newer { path, found, known });
        }
        format::migrate(&mut connection, found).map_err(fault)?;
        Ok(Self {
            database: Database::new(path, connection),
            events: Arc::default(),
            metrics: Arc::default(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is told of every change.
    pub fn events(&self) -> &Events {
        &self.events
    }
}

/// The hash of what is asked of a guest; the order of the sources makes no difference.
pub(crate) fn task(machine: &MachineName, toolchain: &ToolchainName, sources: &[Source]) -> Digest {
    let mut sources: Vec<_> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let mut hash = sys::file::Hasher::default();
    // No name holds the sign that parts them.
    for part in [machine.as_str(), toolchain.as_str()] {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    for source in sources {
        hash.update(format!("{} {}\n", source.sha256, source.name).as_bytes());
    }
    hash.finish()
}

#[cfg(test)]
mod tests;
