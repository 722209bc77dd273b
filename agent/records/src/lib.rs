//! The records of builds and schedules: one SQLite file in the state directory.
//!
//! A change is on disk when its call returns. Each build is one row. Its lists are JSON in a
//! column, except the names by which it is found.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

mod concluded;
mod database;
mod idempotency;
mod migrations;
mod queries;
mod rows;
mod updates;

mod deletion;
mod durations;
mod failing;
mod feeds;
mod finished;
mod integrity;
mod leases;
mod list;
mod notifications;
mod problems;
mod revision_counts;
mod schedules;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::settings::{FeedRules, NotifyRules};
use config::task::{Digest, Source};
use config::{BuildId, MachineName, ToolchainName};
use rusqlite::Connection;
use telemetry::Telemetry;

use database::Database;
use migrations::MIGRATIONS;

pub use concluded::read_concluded;
pub use deletion::{Deletion, Summary};
pub use durations::EarlierDurations;
pub use feeds::{FeedCounts, WaitingPublication};
pub use finished::FinishedBuild;
pub use idempotency::{IdempotencyKey, Submitted};
pub use integrity::Integrity;
pub use leases::{ControllerCounts, Lease};
pub use notifications::Notification;
pub use schedules::Added;

/// A failure to read or write the records.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The database failed.
    #[error("cannot use the records in {path}")]
    Database {
        /// The path of the file.
        path: PathBuf,
        /// The error of the database.
        source: rusqlite::Error,
    },
    /// A newer version of the agent wrote the file.
    #[error(
        "{path} was written by a newer buildhost-agent (format {found}, this one knows {known})"
    )]
    Newer {
        /// The path of the file.
        path: PathBuf,
        /// The version of its format.
        found: usize,
        /// The newest version that this agent knows.
        known: usize,
    },
    /// An older version of the agent wrote the file.
    #[error(
        "{path} was written by an older buildhost-agent (format {found}, this program needs {known}); restart the agent"
    )]
    Older {
        /// The path of the file.
        path: PathBuf,
        /// The version of its format.
        found: usize,
        /// The version that this program knows.
        known: usize,
    },
    /// The record of a build was saved or deleted by another since it was read.
    #[error("the record of build {0} was changed meanwhile")]
    Conflict(BuildId),
    /// The thread with the query ended.
    #[error("the records could not be reached")]
    Gone,
}

/// The records. Clones share them.
#[derive(Debug, Clone)]
pub struct Records {
    database: Database,
    telemetry: Telemetry,
    end_rules: Arc<EndRules>,
}

/// The rules about the ends of builds, which the records follow in the transaction of an end.
#[derive(Debug, Clone, Default)]
pub struct EndRules {
    /// The rules for notifications.
    pub notify: Vec<NotifyRules>,
    /// The package feeds.
    pub feeds: Vec<FeedRules>,
}

impl Records {
    /// Returns the records that follow these rules at the ends of builds.
    #[must_use]
    pub fn with_end_rules(mut self, rules: EndRules) -> Self {
        self.end_rules = Arc::new(rules);
        self
    }

    /// Opens the file, creates it if missing, and migrates it to the newest version. Changes
    /// are published through `telemetry`.
    ///
    /// # Errors
    /// The file cannot be opened or migrated, or is newer than this agent.
    pub fn open(path: &Path, telemetry: Telemetry) -> Result<Self, RecordsError> {
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
        let found = format(&connection).map_err(fault)?;
        let known = MIGRATIONS.len();
        if found > known {
            let path = path.to_owned();
            return Err(RecordsError::Newer { path, found, known });
        }
        migrations::migrate(&mut connection, found).map_err(fault)?;
        Ok(Self {
            database: Database::new(path, connection),
            telemetry,
            end_rules: Arc::default(),
        })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        self.database.path()
    }
}

/// Returns the version of a database's format.
fn format(connection: &Connection) -> rusqlite::Result<usize> {
    let format: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(format).unwrap_or(usize::MAX))
}

/// Returns the hash of a guest's task. The order of the sources does not matter.
pub fn task(machine: &MachineName, toolchain: &ToolchainName, sources: &[Source]) -> Digest {
    let mut sources: Vec<_> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let mut hash = sys::file::Hasher::default();
    // Names have no line ends.
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
