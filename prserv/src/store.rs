//! Where rows are kept. A store thinks nothing: it loads, it inserts, it commits durably.

pub mod sqlite;

pub mod postgres;

pub mod database;

pub mod select;

use std::io;
use std::path::PathBuf;

use crate::rows::Rows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

pub use database::{Database, Mode};
pub use postgres::Postgres;
pub use select::select;
pub use sqlite::Sqlite;

/// One recorded row: this tuple was given this value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row {
    /// Who has it.
    pub tuple: Tuple,
    /// The value.
    pub value: Value,
}

/// A row that is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRow<'a> {
    /// Who gets it.
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

/// Which rows are wanted; `None` is no restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this version.
    pub version: Option<String>,
    /// Only this architecture.
    pub pkgarch: Option<String>,
    /// Only this checksum.
    pub checksum: Option<String>,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Looking only.
    Read,
    /// Giving values: nobody else can give any until it ends.
    Write,
}

/// Whether anybody else has written since our last transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Certainly not: what we remember is still true.
    Silent,
    /// Perhaps: forget everything.
    Wrote,
}

/// A place for rows, used by one thread.
pub trait Store: Send {
    /// Opens a transaction that sees everything committed so far, by anybody.
    fn begin(&mut self, purpose: Purpose) -> Result<Others, StoreError>;

    /// The rows of each package, in the same order.
    fn load(&mut self, packages: &[&Package]) -> Result<Vec<Rows>, StoreError>;

    /// Adds rows; one that is there already stays as it is.
    fn insert(&mut self, rows: &[NewRow]) -> Result<(), StoreError>;

    /// Ends the transaction. What was inserted survives a power cut from here on.
    fn commit(&mut self) -> Result<(), StoreError>;

    /// Ends the transaction as if it had not been; also after an error.
    fn rollback(&mut self);

    /// All rows of a filter's version and architecture, package by package.
    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError>;
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A read-only store makes no file.
    #[error("there is no database {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is a database, but not ours, and must not be written to.
    #[error("{} has no table PRMAIN", path.display())]
    NoTable {
        /// The file.
        path: PathBuf,
    },
    /// A second writer would give values without knowing ours.
    #[error("another PR server writes to {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file beside the database.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread that would own the store cannot be started.
    #[error("cannot start a thread")]
    Thread {
        /// Why.
        source: io::Error,
    },
    /// PostgreSQL refused, or cannot be reached.
    #[error("PostgreSQL failed")]
    Postgres(#[from] ::postgres::Error),
    /// SQLite refused.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
}

impl StoreError {
    /// Whether the next transaction would fail as well: the store itself is not there, or full.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Postgres(error) => error.as_db_error().is_none(),
            Self::Sqlite(_)
            | Self::Missing { .. }
            | Self::NoTable { .. }
            | Self::InUse { .. }
            | Self::File { .. }
            | Self::Thread { .. } => true,
        }
    }
}
