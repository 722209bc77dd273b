//! The check of a SQLite file for unusable rows and for the effects of BitBake's textual order.
//!
//! The order of SQLite's row ids is the order in which the rows were recorded.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::super::StoreError;
use super::Sqlite;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// A defective row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The tuple of the row.
    pub tuple: Tuple,
    /// The stored value; `None` is SQL's NULL.
    pub stored: Option<String>,
    /// The defect.
    pub defect: Defect,
    row_id: i64,
}

/// A defect of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// The value is not a revision, and BitBake's server fails on every request for the package.
    /// A repair deletes the row.
    Invalid,
    /// The value is not written canonically. A repair rewrites it.
    NonCanonical(Value),
    /// An earlier row assigned the same value to another checksum. A repair replaces the value by
    /// a greater one.
    Duplicate {
        /// The checksum of the earlier row.
        owner: String,
        /// The replacement.
        replacement: Value,
    },
    /// An earlier row of the package has this greater value, because of an import or because the
    /// values decreased. No repair is needed: the next value will be greater than all.
    Decreased(Value),
}

impl Defect {
    /// Returns true if a repair changes the row.
    pub fn is_repairable(&self) -> bool {
        !matches!(self, Self::Decreased(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = self.stored.as_deref().unwrap_or("NULL");
        write!(out, "{}: ", self.tuple)?;
        match &self.defect {
            Defect::Invalid => write!(out, "{stored:?} is not a revision"),
            Defect::NonCanonical(value) => write!(out, "{stored:?} should be written {value}"),
            Defect::Duplicate { owner, replacement } => {
                write!(out, "{stored} belongs to {owner}; {replacement} is free")
            }
            Defect::Decreased(max) => write!(out, "{stored} was recorded after {max}"),
        }
    }
}

/// The action of a check on the defects that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Reports them only. A server may be running.
    No,
    /// Repairs them in one transaction, as the only writer.
    Yes,
}

/// Checks every row of a file.
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
            repair_row(&transaction, finding)?;
        }
        transaction.commit()?;
    }
    Ok(findings)
}

/// A row with its stored value.
#[derive(Debug, Clone)]
struct StoredRow {
    row_id: i64,
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
    let mut rows: Vec<StoredRow> = Vec::new();
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
        rows.push(StoredRow {
            row_id: row.get(0)?,
            tuple,
            value: row.get(4)?,
        });
    }
    findings.extend(examine(&rows));
    Ok(findings)
}

/// Returns the defects of one package's rows, which must be in the order of their recording.
fn examine(rows: &[StoredRow]) -> Vec<Finding> {
    let values: Vec<Option<Value>> = rows
        .iter()
        .map(|row| Value::from_record(row.value.as_ref()?).ok())
        .collect();
    let mut free = values
        .iter()
        .flatten()
        .max()
        .map_or_else(Value::first, Value::incremented);
    let mut owners: HashMap<&Value, &str> = HashMap::new();
    let mut max: Option<&Value> = None;
    let mut findings = Vec::new();
    for (stored, value) in rows.iter().zip(&values) {
        let mut add = |defect| {
            let StoredRow {
                row_id,
                tuple,
                value,
            } = stored.clone();
            findings.push(Finding {
                tuple,
                stored: value,
                defect,
                row_id,
            });
        };
        let Some(value) = value else {
            add(Defect::Invalid);
            continue;
        };
        let owner = *owners.entry(value).or_insert(&stored.tuple.checksum);
        if owner != stored.tuple.checksum {
            add(Defect::Duplicate {
                owner: owner.to_owned(),
                replacement: free.clone(),
            });
            free = free.incremented();
        } else if stored.value.as_deref() != Some(value.as_str()) {
            add(Defect::NonCanonical(value.clone()));
        } else if let Some(max) = max.filter(|max| *max > value) {
            add(Defect::Decreased(max.clone()));
        }
        max = max.max(Some(value));
    }
    findings
}

fn repair_row(transaction: &Transaction, finding: &Finding) -> Result<(), StoreError> {
    let value = match &finding.defect {
        Defect::Decreased(_) => return Ok(()),
        Defect::Invalid => None,
        Defect::NonCanonical(value)
        | Defect::Duplicate {
            replacement: value, ..
        } => Some(value),
    };
    transaction.execute("DELETE FROM PRMAIN WHERE rowid = ?", [finding.row_id])?;
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

    fn create_defective_file(path: &Path) {
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
    fn every_defect_is_found_and_a_repair_leaves_none_that_is_repairable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prserv.sqlite3");
        create_defective_file(&path);
        let found = check(&path, Repair::No).unwrap();
        let expected = [
            "v for all with checksum d: 10 was recorded after 12",
            "v for all with checksum e: 9 belongs to b; 13 is free",
            "v for all with checksum f: \"007\" should be written 7",
            "v for all with checksum g: \"abc\" is not a revision",
            "v for all with checksum h: \"NULL\" is not a revision",
            "v for all with checksum i: 12 belongs to c; 14 is free",
        ];
        assert_eq!(lines(&found), expected);
        assert_eq!(check(&path, Repair::Yes).unwrap(), found);
        let remaining = check(&path, Repair::No).unwrap();
        assert!(
            remaining
                .iter()
                .all(|finding| !finding.defect.is_repairable()),
            "{remaining:?}"
        );
    }
}
