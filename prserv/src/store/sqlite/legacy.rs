//! Files of BitBake up to 2.8: their table `PRMAIN_nohist` is taken over when a file is opened.
//!
//! The old table stays, so that a downgrade finds it. After a downgrade and another upgrade it
//! holds newer values than `PRMAIN`: those are taken over too, and nothing else.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::super::{Row, StoreError};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const TABLE: &str = "PRMAIN_nohist";

/// What was taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TakenOver {
    /// Rows that are now in `PRMAIN`.
    pub(super) rows: usize,
    /// Rows whose value is no revision; they stay where they are.
    pub(super) junk: usize,
}

/// Copies what `PRMAIN` lacks, in one transaction.
pub(super) fn take_over(connection: &mut Connection) -> Result<TakenOver, StoreError> {
    if !connection.table_exists(None, TABLE)? {
        return Ok(TakenOver::default());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (rows, junk) = newer_rows(&transaction)?;
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
    Ok(TakenOver {
        rows: rows.len(),
        junk,
    })
}

/// The old rows above everything that `PRMAIN` has of their package, and the number of bad ones.
fn newer_rows(transaction: &Transaction) -> Result<(Vec<Row>, usize), StoreError> {
    let mut statement = transaction.prepare(
        "SELECT version, pkgarch, checksum, value FROM PRMAIN_nohist
             ORDER BY version, pkgarch",
    )?;
    let mut found = statement.query([])?;
    let (mut rows, mut junk) = (Vec::new(), 0);
    let mut ours: Option<(Package, Option<Value>)> = None;
    while let Some(row) = found.next()? {
        let tuple = Tuple::new(
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
        );
        let Some(value) = revision(row.get_ref(3)?) else {
            tracing::warn!(%tuple, "an old row has no usable value");
            junk += 1;
            continue;
        };
        let max = match ours.take_if(|(package, _)| *package == tuple.package) {
            Some((_, max)) => max,
            None => greatest(transaction, &tuple.package)?,
        };
        if max.as_ref().is_none_or(|max| *max < value) {
            rows.push(Row {
                tuple: tuple.clone(),
                value,
            });
        }
        ours = Some((tuple.package, max));
    }
    Ok((rows, junk))
}

fn revision(value: ValueRef) -> Option<Value> {
    match value {
        ValueRef::Integer(number) => u64::try_from(number).ok().map(Value::from),
        ValueRef::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// The greatest value that `PRMAIN` has of a package.
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
        connection.execute(super::super::SCHEMA, []).unwrap();
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
    fn old_rows_are_taken_over_as_text_junk_is_left_and_a_second_time_changes_nothing() {
        let mut connection = database(
            "INSERT INTO PRMAIN_nohist VALUES ('v', 'a', 'c0', 15), ('v', 'a', 'c1', 9),
             ('w', 'a', 'c', 'abc'), ('x', 'a', 'c', NULL), ('y', 'a', 'c', -1);",
        );
        let taken = take_over(&mut connection).unwrap();
        assert_eq!(taken, TakenOver { rows: 2, junk: 3 });
        assert_eq!(rows(&connection), ["v c0 15 text", "v c1 9 text"]);
        assert_eq!(
            take_over(&mut connection).unwrap(),
            TakenOver { rows: 0, junk: 3 }
        );
        let kept: i64 = connection
            .query_row("SELECT count(*) FROM PRMAIN_nohist", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 5);
    }

    #[test]
    fn after_a_downgrade_only_values_above_ours_are_taken_over() {
        let mut connection = database(
            "INSERT INTO PRMAIN VALUES ('v', 'a', 'c0', '9'), ('v', 'a', 'c1', '10');
             INSERT INTO PRMAIN_nohist VALUES ('v', 'a', 'c2', 10), ('v', 'a', 'c3', 11);",
        );
        assert_eq!(take_over(&mut connection).unwrap().rows, 1);
        assert_eq!(
            rows(&connection),
            ["v c0 9 text", "v c1 10 text", "v c3 11 text"]
        );
    }
}
