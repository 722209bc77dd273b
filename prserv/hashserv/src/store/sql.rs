//! A connection that executes SQL: the difference between the databases.
//!
//! Parameters are written `?1`, `?2`, …. Integers of the database are cast to `bigint`.

use super::{StoreError, TransactionMode};

/// The mode in which a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads and writes. A missing file or table is created.
    Write,
    /// Reads only. A missing file or table is an error.
    Read,
}

/// A connection.
pub(super) trait Sql: Send {
    fn dialect(&self) -> &'static Dialect;

    /// Executes a statement and returns the number of rows that it changed.
    fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError>;

    /// Executes a statement and returns its rows.
    fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError>;

    fn begin(&mut self, mode: TransactionMode) -> Result<(), StoreError>;

    fn commit(&mut self) -> Result<(), StoreError>;

    fn rollback(&mut self);

    /// Returns true if others may have written since the last call.
    fn has_external_writes(&mut self) -> Result<bool, StoreError>;
}

/// The expressions that differ.
#[derive(Debug)]
pub(super) struct Dialect {
    /// The text of the column `created`.
    pub(super) created: &'static str,
    /// The parts before and after a parameter that is a time.
    pub(super) time_cast: (&'static str, &'static str),
}

impl Dialect {
    /// Returns the expression for a parameter that is a time.
    pub(super) fn time(&self, parameter: &str) -> String {
        let (before, after) = self.time_cast;
        format!("{before}{parameter}{after}")
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Param<'a> {
    Text(&'a str),
    Optional(Option<&'a str>),
    Integer(i64),
}

/// A row.
#[derive(Debug, Default)]
pub(super) struct Row(pub(super) Vec<Cell>);

/// The value of a column.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    Null,
    Text(String),
    Integer(i64),
}

impl Row {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn text(&self, index: usize) -> Result<String, StoreError> {
        self.optional(index)?.ok_or(StoreError::Type)
    }

    pub(super) fn optional(&self, index: usize) -> Result<Option<String>, StoreError> {
        match self.0.get(index) {
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(text)) => Ok(Some(text.clone())),
            Some(Cell::Integer(number)) => Ok(Some(number.to_string())),
            None => Err(StoreError::Type),
        }
    }

    pub(super) fn integer(&self, index: usize) -> Result<i64, StoreError> {
        match self.0.get(index) {
            Some(Cell::Integer(number)) => Ok(*number),
            _ => Err(StoreError::Type),
        }
    }
}
