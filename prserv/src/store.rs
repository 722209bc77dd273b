//! Persistent storage of rows. A store makes no decisions: it loads, inserts and commits.

mod condition;
pub mod database;
pub mod postgres;
pub mod select;
pub mod sqlite;

use std::io;
use std::path::PathBuf;

use crate::package_rows::PackageRows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

pub use database::Database;
pub use postgres::Postgres;
pub use select::export;
pub use sqlite::Sqlite;

/// A recorded row: a tuple and a value that was assigned to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// The owner of the value.
    pub tuple: Tuple,
    /// The value.
    pub value: Value,
}

/// A row to record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow<'a> {
    /// The owner of the value.
    pub tuple: &'a Tuple,
    /// The value.
    pub value: Value,
}

impl<'a> From<&'a Row> for NewRow<'a> {
    fn from(Row { tuple, value }: &'a Row) -> Self {
        Self {
            tuple,
            value: value.clone(),
        }
    }
}

/// A filter for rows. `None` matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Matches this version.
    pub version: Option<String>,
    /// Matches this architecture.
    pub pkgarch: Option<String>,
    /// Matches this checksum.
    pub checksum: Option<String>,
}

/// The numbers of what a store has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// The packages: versions with an architecture.
    pub packages: u64,
    /// The rows.
    pub rows: u64,
}

/// The mode in which a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Assigns values. A missing file or schema is created.
    Write,
    /// Reads only. A missing file or schema is an error.
    Read,
}

/// The mode of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionMode {
    /// Reads only.
    Read,
    /// Assigns values. No other process can assign values until the transaction ends.
    Write,
}

/// Writes by other processes since the store's last transaction.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalWrites {
    /// There were none, so cached rows are valid.
    None,
    /// There may have been some, so the cache must be cleared.
    Possible,
}

/// A store of rows, used by one thread.
pub trait Store: Send {
    /// Begins a transaction that sees everything that any process has committed so far.
    fn begin(&mut self, mode: TransactionMode) -> Result<ExternalWrites, StoreError>;

    /// Loads the rows of each package, in the order of the packages.
    fn load(&mut self, packages: &[&Package]) -> Result<Vec<PackageRows>, StoreError>;

    /// Inserts rows. A row that exists already is left unchanged.
    fn insert(&mut self, rows: &[NewRow]) -> Result<(), StoreError>;

    /// Deletes rows. A row that does not exist is no error.
    fn delete(&mut self, rows: &[Row]) -> Result<(), StoreError>;

    /// Commits the transaction. When this returns, the changes survive a power failure. Returns the
    /// writes of other processes since, if the store can tell at once.
    fn commit(&mut self) -> Result<ExternalWrites, StoreError>;

    /// Rolls the transaction back. May be called after an error.
    fn rollback(&mut self);

    /// Returns the rows that match, grouped by package.
    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError>;

    /// Returns the first packages whose version contains a text, in any case, in their order.
    fn packages(&mut self, text: &str, most: u32) -> Result<Vec<Package>, StoreError>;

    /// Counts packages and rows.
    fn counts(&mut self) -> Result<Counts, StoreError>;
}

/// The error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database of a read-only store does not exist.
    #[error("there is no database {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database of another program and must not be written to.
    #[error("{} has no table PRMAIN", path.display())]
    NoTable {
        /// The file.
        path: PathBuf,
    },
    /// Another server holds the writer's lock. Two writers could assign a value twice.
    #[error("another PR server writes to {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Locks and shared memory do not work between the hosts that share a file system.
    #[error(
        "{} is on {name}, where SQLite cannot protect it from other hosts; use a local disk, or \
         PostgreSQL for several servers",
        path.display()
    )]
    SharedFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of file system.
        name: &'static str,
    },
    /// The file cannot be opened for reading.
    #[error("cannot open {}: {reason}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The text of SQLite's error.
        reason: String,
    },
    /// The file has a write-ahead log, and the files to read it cannot be created.
    #[error(
        "cannot read {}, because nothing can be created in its directory; copy it with {} to \
         another directory",
        log.display(), path.display()
    )]
    LogUnreadable {
        /// The file.
        path: PathBuf,
        /// Its write-ahead log.
        log: PathBuf,
    },
    /// A file in a directory of another user was changed while it was read without locks.
    #[error("{} was changed while it was read; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file or directory beside the database cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The writer's thread could not be started.
    #[error("cannot start the writer's thread")]
    Thread {
        /// The cause.
        source: io::Error,
    },
    /// PostgreSQL returned an error or cannot be reached.
    #[error("PostgreSQL failed")]
    Postgres(#[from] ::postgres::Error),
    /// SQLite returned an error. Its source is not the source of this one, because both texts would
    /// say the same.
    #[error("SQLite failed: {}", error_text(.0))]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Returns the message of an error of SQLite, once, and its extended result code.
fn error_text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(code, Some(message)) => {
            format!("{message} (code {})", code.extended_code)
        }
        error => error.to_string(),
    }
}

impl StoreError {
    /// Returns true if the next transaction would likely fail as well, because the store itself is
    /// unavailable or full.
    pub fn is_persistent(&self) -> bool {
        match self {
            Self::Postgres(error) => error.as_db_error().is_none(),
            Self::Sqlite(_)
            | Self::Missing { .. }
            | Self::NoTable { .. }
            | Self::InUse { .. }
            | Self::SharedFileSystem { .. }
            | Self::Open { .. }
            | Self::LogUnreadable { .. }
            | Self::Changed { .. }
            | Self::File { .. }
            | Self::Thread { .. } => true,
        }
    }
}
