//! Rows of the tables as values.

use config::task::Outcome;
use config::{BuildId, MachineName};
use farm_core::messages::Grant;
use farm_core::{Epoch, Lease, Published, Requirements, Revision};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;

use crate::StoreError;

/// Returns a number of the database, all of which are positive.
pub(crate) fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).cast_unsigned()
}

/// Reads a column of JSON.
pub(crate) fn json<T: DeserializeOwned>(
    table: &'static str,
    row: &Row,
    column: usize,
) -> Result<T, StoreError> {
    serde_json::from_str(row.get(column)).map_err(|error| StoreError::Row {
        table,
        row: row.get(0),
        reason: error.to_string(),
    })
}

/// Reads a column of text that has a grammar.
pub(crate) fn parsed<T>(table: &'static str, row: i64, text: &str) -> Result<T, StoreError>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|error: T::Err| StoreError::Row {
        table,
        row,
        reason: error.to_string(),
    })
}

/// Reads a lease: id, epoch, requirements, canceled, revision on trial.
pub(crate) fn grant(row: &Row) -> Result<Grant, StoreError> {
    Ok(Grant {
        lease: lease(row),
        requirements: json::<Requirements>("builds", row, 2)?,
        canceled: row.get(3),
        trial: row
            .get::<_, Option<i64>>(4)
            .map(|it| Revision(it.cast_unsigned())),
    })
}

/// Reads the name of a lease: id, epoch.
pub(crate) fn lease(row: &Row) -> Lease {
    Lease {
        build: BuildId(number(row, 0)),
        epoch: Epoch(number(row, 1)),
    }
}

/// Reads an outcome.
pub(crate) fn outcome(build: BuildId, text: &str) -> Result<Outcome, StoreError> {
    parsed("finished", build.0.cast_signed(), text)
}

/// Returns a time that the database gave as milliseconds since 1970.
pub(crate) fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}

/// Reads a published revision: name, revision, content.
pub(crate) fn published(row: &Row) -> Result<(MachineName, Published), StoreError> {
    const TABLE: &str = "machines";
    let content = row.get::<_, Option<&str>>(2);
    let published = Published {
        revision: Revision(number(row, 1)),
        content: content.map(|it| parsed(TABLE, 0, it)).transpose()?,
    };
    Ok((parsed(TABLE, 0, row.get(0))?, published))
}
