//! What is wrong in a file: rows that no server can use, and what upstream's text order left.
//!
//! The order in which rows were recorded is that of SQLite's row numbers.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::super::StoreError;
use super::Sqlite;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// One thing that is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The row.
    pub tuple: Tuple,
    /// Its value as it is stored; `None` is SQL's NULL.
    pub stored: Option<String>,
    /// What is wrong.
    pub fault: Fault,
    row: i64,
}

/// What can be wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The value is no revision; upstream's server fails on every ask for such a package.
    /// Repaired by removing the row.
    Junk,
    /// The value is spelled otherwise than we spell it. Repaired by spelling it anew.
    Spelling(Value),
    /// An earlier row gave the same value to another checksum. Repaired by a new, greater value.
    Shared {
        /// Who had it first.
        first: String,
        /// The value to give instead.
        instead: Value,
    },
    /// An earlier row of the package is greater: an import, or a value that went down. There is
    /// nothing to repair: the next value will be above all.
    WentDown(Value),
}

impl Fault {
    /// Whether a repair changes anything.
    pub fn is_repairable(&self) -> bool {
        !matches!(self, Self::WentDown(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = self.stored.as_deref().unwrap_or("NULL");
        write!(out, "{}: ", self.tuple)?;
        match &self.fault {
            Fault::Junk => write!(out, "{stored:?} is no revision"),
            Fault::Spelling(value) => write!(out, "{stored:?} should be spelled {value}"),
            Fault::Shared { first, instead } => {
                write!(out, "{stored} belongs to {first}; {instead} is free")
            }
            Fault::WentDown(max) => write!(out, "{stored} was recorded after {max}"),
        }
    }
}

/// Whether a check mends what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Look only; another server may be running.
    No,
    /// Mend, in one transaction, as the only writer.
    Yes,
}

/// Looks at every row of a file.
pub fn check(path: &Path, repair: Repair) -> Result<Vec<Finding>, StoreError> {
    let mut sqlite = match repair {
        Repair::No => Sqlite::open_read_only(path)?,
        Repair::Yes => Sqlite::open_existing(path)?,
    };
    let behavior = match repair {
        Repair::No => TransactionBehavior::Deferred,
        Repair::Yes => TransactionBehavior::Immediate,
    };
    let transaction = sqlite.connection.transaction_with_behavior(behavior)?;
    let findings = examine_all(&transaction)?;
    if repair == Repair::Yes {
        for finding in &findings {
            mend(&transaction, finding)?;
        }
        transaction.commit()?;
    }
    Ok(findings)
}

/// A row as it is stored.
#[derive(Debug, Clone)]
struct Stored {
    row: i64,
    tuple: Tuple,
    value: Option<String>,
}

fn examine_all(connection: &Connection) -> Result<Vec<Finding>, StoreError> {
    let mut statement = connection.prepare(
        "SELECT rowid, version, pkgarch, checksum, CAST(value AS TEXT) FROM PRMAIN
         ORDER BY version, pkgarch, rowid",
    )?;
    let mut found = statement.query([])?;
    let mut findings = Vec::new();
    let mut rows: Vec<Stored> = Vec::new();
    while let Some(row) = found.next()? {
        let package = Package::new(row.get::<_, String>(1)?, row.get::<_, String>(2)?);
        if rows
            .first()
            .is_some_and(|first| first.tuple.package != package)
        {
            findings.extend(examine(&rows));
            rows.clear();
        }
        let tuple = Tuple {
            package,
            checksum: row.get(3)?,
        };
        rows.push(Stored {
            row: row.get(0)?,
            tuple,
            value: row.get(4)?,
        });
    }
    findings.extend(examine(&rows));
    Ok(findings)
}

/// What is wrong with the rows of one package, which come in the order of their recording.
fn examine(rows: &[Stored]) -> Vec<Finding> {
    let values: Vec<Option<Value>> = rows
        .iter()
        .map(|row| row.value.as_ref()?.parse().ok())
        .collect();
    let mut free = values
        .iter()
        .flatten()
        .max()
        .map_or_else(Value::first, Value::increased);
    let mut owners: HashMap<&Value, &str> = HashMap::new();
    let mut max: Option<&Value> = None;
    let mut findings = Vec::new();
    for (stored, value) in rows.iter().zip(&values) {
        let mut add = |fault| {
            let Stored { row, tuple, value } = stored.clone();
            findings.push(Finding {
                tuple,
                stored: value,
                fault,
                row,
            });
        };
        let Some(value) = value else {
            add(Fault::Junk);
            continue;
        };
        let first = *owners.entry(value).or_insert(&stored.tuple.checksum);
        if first != stored.tuple.checksum {
            add(Fault::Shared {
                first: first.to_owned(),
                instead: free.clone(),
            });
            free = free.increased();
        } else if stored.value.as_deref() != Some(value.as_str()) {
            add(Fault::Spelling(value.clone()));
        } else if let Some(max) = max.filter(|max| *max > value) {
            add(Fault::WentDown(max.clone()));
        }
        max = max.max(Some(value));
    }
    findings
}

fn mend(transaction: &Transaction, finding: &Finding) -> Result<(), StoreError> {
    let value = match &finding.fault {
        Fault::WentDown(_) => return Ok(()),
        Fault::Junk => None,
        Fault::Spelling(value) | Fault::Shared { instead: value, .. } => Some(value),
    };
    transaction.execute("DELETE FROM PRMAIN WHERE rowid = ?", [finding.row])?;
    if let Some(value) = value {
        let Tuple { package, checksum } = &finding.tuple;
        transaction.execute(
            "INSERT OR IGNORE INTO PRMAIN VALUES (?, ?, ?, ?)",
            params![package.version, package.pkgarch, checksum, value.as_str()],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damaged(path: &Path) {
        drop(Sqlite::open(path).unwrap());
        let connection = Connection::open(path).unwrap();
        for (checksum, value) in [
            ("a", Some("0")),
            ("b", Some("9")),
            ("c", Some("12")),
            ("d", Some("10")),
            ("e", Some("9")),
            ("f", Some("007")),
            ("g", Some("abc")),
            ("h", None),
            ("i", Some("12")),
        ] {
            connection
                .execute(
                    "INSERT INTO PRMAIN VALUES ('v', 'all', ?, ?)",
                    params![checksum, value],
                )
                .unwrap();
        }
    }

    fn lines(findings: &[Finding]) -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_fault_is_found_and_repaired_so_that_a_second_check_finds_nothing_to_repair() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prserv.sqlite3");
        damaged(&path);
        let found = check(&path, Repair::No).unwrap();
        let expected = [
            "v for all with checksum d: 10 was recorded after 12",
            "v for all with checksum e: 9 belongs to b; 13 is free",
            "v for all with checksum f: \"007\" should be spelled 7",
            "v for all with checksum g: \"abc\" is no revision",
            "v for all with checksum h: \"NULL\" is no revision",
            "v for all with checksum i: 12 belongs to c; 14 is free",
        ];
        assert_eq!(lines(&found), expected);
        assert_eq!(check(&path, Repair::Yes).unwrap(), found);
        let left = check(&path, Repair::No).unwrap();
        assert!(
            left.iter().all(|finding| !finding.fault.is_repairable()),
            "{left:?}"
        );
    }
}
