//! The catalog: the releases, layers, settings and projects of a host, in a database of its own.
//!
//! Each source of layers has its rows, which are replaced in one transaction. If several sources
//! have a release or a layer of the same name, the source of the lowest rank decides: what an
//! administrator added, then fixtures, then layer indexes in the order of the settings, then what
//! Buildhost knows by itself.

mod added;
mod archives;
mod migrations;
mod projects;
mod queries;
mod rows;
mod source_key;
mod sources;
mod unreadable;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::{LayerName, ProjectName, ReleaseName};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::fixtures::Faults;

pub use archives::Origin;
pub use source_key::SourceKey;
pub use sources::Replaced;

/// The largest number of projects.
pub const PROJECTS_MAX: u64 = 10_000;

/// A failure to use the catalog, or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database failed.
    #[error("cannot use the catalog of layers in {path}")]
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
    /// There is no such release.
    #[error("there is no release {0}; `buildhost release list` lists all releases")]
    NoRelease(ReleaseName),
    /// There is no such layer.
    #[error("there is no layer {0}; `buildhost layer list` lists all layers")]
    NoLayer(LayerName),
    /// There is no such project.
    #[error("there is no project {0}; `buildhost project list` lists all projects")]
    NoProject(ProjectName),
    /// The object was not added by an administrator, and cannot be removed alone.
    #[error("{what} comes from {source_name}; only what was added by hand can be removed")]
    NotAdded {
        /// The object.
        what: String,
        /// Its source.
        source_name: String,
    },
    /// Projects need the object.
    #[error("{what} is needed by the projects {projects}; change them first")]
    Needed {
        /// The object.
        what: String,
        /// The projects.
        projects: String,
    },
    /// A project of this name exists.
    #[error("there is a project {0} already; replace or remove it, or choose another name")]
    ProjectExists(ProjectName),
    /// There are too many projects.
    #[error("there are {PROJECTS_MAX} projects already, the maximum; remove some")]
    Full,
    /// Fixtures have faults; nothing was changed.
    #[error(transparent)]
    Fixtures(#[from] Faults),
}

/// The catalog. Clones share it. It is opened at its first use.
#[derive(Debug, Clone)]
pub struct Catalog {
    path: Arc<Path>,
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Catalog {
    /// Returns the catalog in a file, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            connection: Arc::default(),
        }
    }

    /// Opens the file and migrates it, if that was not done yet.
    ///
    /// # Errors
    /// The file cannot be opened or migrated, or is newer than this agent.
    pub fn prepare(&self) -> Result<(), CatalogError> {
        self.write(|_| Ok(Ok(())))
    }

    /// Runs a transaction. It is rolled back if `work` fails or refuses.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Result<T, CatalogError>>,
    ) -> Result<T, CatalogError> {
        let fault = |source| self.fault(source);
        let mut guard = self.connection.lock();
        if guard.is_none() {
            *guard = Some(self.open()?);
        }
        let Some(connection) = guard.as_mut() else {
            return Err(fault(rusqlite::Error::InvalidQuery));
        };
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fault)?;
        let done = work(&transaction).map_err(fault)??;
        transaction.commit().map_err(fault)?;
        Ok(done)
    }

    /// Runs a query.
    fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CatalogError> {
        self.write(|transaction| work(transaction).map(Ok))
    }

    fn fault(&self, source: rusqlite::Error) -> CatalogError {
        let path = self.path.to_path_buf();
        CatalogError::Database { path, source }
    }

    fn open(&self) -> Result<Connection, CatalogError> {
        let fault = |source| self.fault(source);
        let mut connection = Connection::open(&self.path).map_err(fault)?;
        for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL")] {
            connection
                .pragma_update(None, pragma, value)
                .map_err(fault)?;
        }
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(fault)?;
        let found: u32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fault)?;
        let (found, known) = (found as usize, migrations::MIGRATIONS.len());
        if found > known {
            let path = self.path.to_path_buf();
            return Err(CatalogError::Newer { path, found, known });
        }
        migrations::migrate(&mut connection, found).map_err(fault)?;
        Ok(connection)
    }
}

/// Returns a release as the column of a layer has it.
fn release_column(release: Option<&ReleaseName>) -> &str {
    release.map_or("", ReleaseName::as_str)
}

/// Returns a value as JSON for a column.
fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// Parses a column of JSON.
fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
    })
}

/// Parses the content of a row in a list. Leaves out one that cannot be read, such as one with a
/// value of a newer agent: it must not hide the others. [`Catalog::unreadable`] tells which.
fn listed<T: serde::de::DeserializeOwned>(content: &str) -> Option<T> {
    serde_json::from_str(content).ok()
}

#[cfg(test)]
mod tests;
