//! The migration of files of BitBake up to 2.8, whose table is `PRMAIN_nohist`.
//!
//! The old table is kept for a downgrade. After a downgrade and another upgrade it may hold values
//! greater than those in `PRMAIN`; only these are copied.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::super::{Row, StoreError};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const TABLE: &str = "PRMAIN_nohist";

/// The number of rows in the old table by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Migrated {
    /// Rows that were copied to `PRMAIN`.
    pub(super) rows: usize,
    /// Rows that were not copied because their value is not a revision.
    pub(super) unusable: usize,
}

/// Copies the rows that `PRMAIN` lacks in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<Migrated, StoreError> {
    if !connection.table_exists(None, TABLE)? {
        return Ok(Migrated::default());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (rows, unusable) = newer_rows(&transaction)?;
    for Row { tuple, value } in &rows {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO PRMAIN VALUES (?, ?, ?, ?)")?
            .execute(params![
                tuple.package.version,
                tuple.package.pkgarch,
                tuple.checksum,
                value.as_str()
            ])?;
    }
    transaction.commit()?;
    Ok(Migrated {
        rows: rows.len(),
        unusable,
    })
}

/// Returns the old rows whose value is greater than all values of their package in `PRMAIN`, and
/// the number of unusable rows.
fn newer_rows(transaction: &Transaction) -> Result<(Vec<Row>, usize), StoreError> {
    let mut statement = transaction.prepare(
        "SELECT version, pkgarch, checksum, value FROM PRMAIN_nohist
             ORDER BY version, pkgarch",
    )?;
    let mut found = statement.query([])?;
    let (mut rows, mut unusable) = (Vec::new(), 0);
    let mut last_package: Option<(Package, Option<Value>)> = None;
    while let Some(row) = found.next()? {
        let tuple = Tuple::new(
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        );
        let Some(value) = revision(row.get_ref(3)?) else {
            tracing::warn!(%tuple, "ignoring a row of the old table without a valid value");
            unusable += 1;
            continue;
        };
        let max = match last_package.take_if(|(package, _)| *package == tuple.package) {
            Some((_, max)) => max,
            None => greatest(transaction, &tuple.package)?,
        };
        if max.as_ref().is_none_or(|max| *max < value) {
            rows.push(Row {
                tuple: tuple.clone(),
                value,
            });
        }
        last_package = Some((tuple.package, max));
    }
    Ok((rows, unusable))
}

fn revision(value: ValueRef) -> Option<Value> {
    match value {
        ValueRef::Integer(number) => u64::try_from(number).ok().map(Value::from),
        ValueRef::Text(text) => Value::from_record(std::str::from_utf8(text).ok()?).ok(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// Returns the greatest value of a package in `PRMAIN`.
fn greatest(transaction: &Transaction, package: &Package) -> Result<Option<Value>, StoreError> {
    let mut statement =
        transaction.prepare_cached("SELECT value FROM PRMAIN WHERE version = ? AND pkgarch = ?")?;
    let mut found = statement.query(params![package.version, package.pkgarch])?;
    let mut max = None;
    while let Some(row) = found.next()? {
        max = max.max(revision(row.get_ref(0)?));
    }
    Ok(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(script: &str) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute(super::super::open::SCHEMA, []).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE PRMAIN_nohist (version TEXT NOT NULL, pkgarch TEXT NOT NULL,
                 checksum TEXT NOT NULL, value INTEGER, PRIMARY KEY (version, pkgarch, checksum));",
            )
            .unwrap();
        connection.execute_batch(script).unwrap();
        connection
    }

    fn rows(connection: &Connection) -> Vec<String> {
        let text = "SELECT version || ' ' || checksum || ' ' || value || ' ' || typeof(value)
                    FROM PRMAIN ORDER BY 1";
        let mut statement = connection.prepare(text).unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn old_rows_are_copied_as_text_without_unusable_ones_and_only_once() {
        let mut connection = database(
            "INSERT INTO PRMAIN_nohist VALUES ('v', 'a', 'c0', 15), ('v', 'a', 'c1', 9),
             ('w', 'a', 'c', 'abc'), ('x', 'a', 'c', NULL), ('y', 'a', 'c', -1);",
        );
        let first = migrate(&mut connection).unwrap();
        assert_eq!(
            first,
            Migrated {
                rows: 2,
                unusable: 3
            }
        );
        assert_eq!(rows(&connection), ["v c0 15 text", "v c1 9 text"]);
        assert_eq!(
            migrate(&mut connection).unwrap(),
            Migrated {
                rows: 0,
                unusable: 3
            }
        );
        let kept: i64 = connection
            .query_row("SELECT count(*) FROM PRMAIN_nohist", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 5);
    }

    #[test]
    fn after_a_downgrade_only_greater_values_are_copied() {
        let mut connection = database(
            "INSERT INTO PRMAIN VALUES ('v', 'a', 'c0', '9'), ('v', 'a', 'c1', '10');
             INSERT INTO PRMAIN_nohist VALUES ('v', 'a', 'c2', 10), ('v', 'a', 'c3', 11);",
        );
        assert_eq!(migrate(&mut connection).unwrap().rows, 1);
        assert_eq!(
            rows(&connection),
            ["v c0 9 text", "v c1 10 text", "v c3 11 text"]
        );
    }
}
