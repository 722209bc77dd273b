//! A SQLite file with the table `PRMAIN` of BitBake's own server, which can use the same file.
//!
//! The file is in WAL mode without exclusive locking, so other processes may read it while it is
//! written. Only one server may write: it holds a lock on `FILE.lock` and, for the programs that do
//! not know this lock, SQLite's own write lock between its transactions too. A second writer would
//! outdate its cache.

pub mod check;

mod legacy;

mod medium;

mod open;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params, params_from_iter};

use super::condition::{Condition, condition};
use super::{Counts, ExternalWrites, Filter, NewRow, Row, Store, StoreError, TransactionMode};
use crate::package_rows::PackageRows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;
use medium::Stamp;
use open::in_use_or;

/// A connection to a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    path: PathBuf,
    /// `PRAGMA data_version` at the last transaction. Commits of other connections change it.
    data_version: Option<i64>,
    /// True if the write lock is held between transactions: a transaction is open then.
    keeps_write_lock: bool,
    /// Writes of others that were found when the write lock was taken.
    external_writes: ExternalWrites,
    /// The state of a file that is read without locks.
    stamp: Option<Stamp>,
    /// The writer's lock. Declared last, so that the database is closed before it is released.
    _lock: Option<File>,
}

/// Copies a consistent snapshot of a file, which may be in use. The copy replaces `to` only when it
/// is complete.
pub fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File {
        path: to.to_owned(),
        source,
    };
    let source = Sqlite::open_read_only(from)?;
    let directory = tempfile::tempdir_in(directory_of(to)).map_err(failed)?;
    let copy = directory.path().join("copy");
    source
        .connection
        .execute("VACUUM INTO ?", [copy.as_os_str().to_string_lossy()])?;
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(failed)?;
    fs::rename(&copy, to).map_err(failed)?;
    sync_directory(to)
}

impl Sqlite {
    /// Keeps SQLite's write lock until the file is closed. Other programs can read; their writes
    /// fail.
    ///
    /// # Errors
    /// Another program holds the write lock for longer than the busy timeout.
    pub(crate) fn keeping_write_lock(mut self) -> Result<Self, StoreError> {
        self.keeps_write_lock = true;
        self.take_write_lock()?;
        Ok(self)
    }

    fn take_write_lock(&mut self) -> Result<(), StoreError> {
        let begin =
            |connection: &Connection| connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
        begin(&self.connection).map_err(|error| in_use_or(error, &self.path))?;
        self.external_writes = self.writes_since_last_look()?;
        Ok(())
    }

    fn writes_since_last_look(&mut self) -> Result<ExternalWrites, StoreError> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let last_version = self.data_version.replace(version);
        Ok(if last_version == Some(version) {
            ExternalWrites::None
        } else {
            ExternalWrites::Possible
        })
    }

    /// Opens the file again if it is read without locks and has changed.
    fn refresh(&mut self) -> Result<(), StoreError> {
        if self.stamp.as_ref().is_some_and(Stamp::is_outdated) {
            *self = Self::open_read_only(&self.path)?;
        }
        Ok(())
    }

    /// Fails if the file is read without locks and has changed while it was read.
    fn check_unchanged(&self) -> Result<(), StoreError> {
        if self.stamp.as_ref().is_some_and(Stamp::is_outdated) {
            return Err(StoreError::Changed {
                path: self.path.clone(),
            });
        }
        Ok(())
    }
}

impl Store for Sqlite {
    fn begin(&mut self, mode: TransactionMode) -> Result<ExternalWrites, StoreError> {
        self.refresh()?;
        match mode {
            _ if self.keeps_write_lock && !self.connection.is_autocommit() => {}
            TransactionMode::Write => self.take_write_lock()?,
            TransactionMode::Read => {
                self.connection.prepare_cached("BEGIN")?.execute([])?;
                self.external_writes = self.writes_since_last_look()?;
            }
        }
        Ok(std::mem::replace(
            &mut self.external_writes,
            ExternalWrites::None,
        ))
    }

    fn load(&mut self, packages: &[&Package]) -> Result<Vec<PackageRows>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT checksum, value FROM PRMAIN WHERE version = ? AND pkgarch = ?",
        )?;
        let mut loaded = Vec::with_capacity(packages.len());
        for package in packages {
            let mut rows = PackageRows::default();
            let mut found = statement.query(params![package.version, package.pkgarch])?;
            while let Some(row) = found.next()? {
                let checksum = row.get_ref(0)?.as_str().unwrap_or_default();
                match row
                    .get_ref(1)?
                    .as_str()
                    .ok()
                    .and_then(|text| Value::from_record(text).ok())
                {
                    Some(value) => rows.add(checksum, &value),
                    None => {
                        tracing::warn!(%package, checksum, "ignoring a row without a valid value");
                    }
                }
            }
            loaded.push(rows);
        }
        Ok(loaded)
    }

    fn insert(&mut self, rows: &[NewRow]) -> Result<(), StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT OR IGNORE INTO PRMAIN VALUES (?, ?, ?, ?)")?;
        for NewRow {
            tuple: Tuple { package, checksum },
            value,
        } in rows
        {
            statement.execute(params![
                package.version,
                package.pkgarch,
                checksum,
                value.as_str()
            ])?;
        }
        Ok(())
    }

    fn delete(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM PRMAIN WHERE version = ? AND pkgarch = ? AND checksum = ? AND value = ?",
        )?;
        for Row {
            tuple: Tuple { package, checksum },
            value,
        } in rows
        {
            statement.execute(params![
                package.version,
                package.pkgarch,
                checksum,
                value.as_str()
            ])?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<ExternalWrites, StoreError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        self.check_unchanged()?;
        if self.keeps_write_lock {
            self.take_write_lock()?;
        }
        Ok(std::mem::replace(
            &mut self.external_writes,
            ExternalWrites::None,
        ))
    }

    fn rollback(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "cannot roll back a transaction");
        }
    }

    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        self.refresh()?;
        let Condition { sql, parameters } = condition(filter, '?');
        let mut statement = self.connection.prepare_cached(&select(&sql))?;
        let mut found = statement.query(params_from_iter(parameters))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let text = |column| {
                row.get::<_, Option<String>>(column)
                    .map(Option::unwrap_or_default)
            };
            let tuple = Tuple::new(text(0)?, text(1)?, text(2)?);
            if let Ok(value) = Value::from_record(&text(3)?) {
                rows.push(Row { tuple, value });
            } else {
                tracing::warn!(%tuple, "ignoring a row without a valid value");
            }
        }
        drop(found);
        drop(statement);
        self.check_unchanged()?;
        Ok(rows)
    }

    fn packages(&mut self, text: &str, most: u32) -> Result<Vec<Package>, StoreError> {
        self.refresh()?;
        let mut statement = self.connection.prepare_cached(
            "SELECT DISTINCT version, pkgarch FROM PRMAIN
             WHERE version <> '' AND instr(lower(version), lower(?1)) > 0
             ORDER BY version, pkgarch LIMIT ?2",
        )?;
        let found = statement.query_map(params![text, most], |row| {
            Ok(Package::new(
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
            ))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    fn counts(&mut self) -> Result<Counts, StoreError> {
        self.refresh()?;
        let mut statement = self.connection.prepare_cached(
            "SELECT (SELECT count(*) FROM (SELECT DISTINCT version, pkgarch FROM PRMAIN)),
                    (SELECT count(*) FROM PRMAIN)",
        )?;
        Ok(statement.query_row([], |row| {
            Ok(Counts {
                packages: row.get::<_, i64>(0)?.unsigned_abs(),
                rows: row.get::<_, i64>(1)?.unsigned_abs(),
            })
        })?)
    }
}

fn select(condition: &str) -> String {
    format!(
        "SELECT version, pkgarch, checksum, value FROM PRMAIN{condition} ORDER BY version, pkgarch"
    )
}

/// Syncs the directory of a file, so that a new file survives a power failure.
fn sync_directory(database: &Path) -> Result<(), StoreError> {
    let directory = directory_of(database);
    let sync = || -> io::Result<()> { File::open(directory)?.sync_all() };
    sync().map_err(|source| StoreError::File {
        path: directory.to_owned(),
        source,
    })
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the path of a file whose name is that of the database and a suffix.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns SQLite's plan of a query for rows.
    fn plan(connection: &Connection, filter: &Filter) -> String {
        let Condition { sql, parameters } = condition(filter, '?');
        let explain = format!("EXPLAIN QUERY PLAN {}", select(&sql));
        let mut statement = connection.prepare(&explain).unwrap();
        let steps = statement.query_map(params_from_iter(parameters), |row| row.get(3));
        let steps: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
        steps.join("; ")
    }

    #[test]
    fn rows_of_a_version_are_found_by_the_primary_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prserv.sqlite3");
        let store = Sqlite::open(&path).unwrap();
        for (pkgarch, checksum) in [(None, None), (Some("a"), None), (None, Some("c"))] {
            let filter = Filter {
                version: Some("v".to_owned()),
                pkgarch: pkgarch.map(str::to_owned),
                checksum: checksum.map(str::to_owned),
            };
            let plan = plan(&store.connection, &filter);
            assert!(
                plan.contains("SEARCH") && plan.contains("version=?"),
                "{plan}"
            );
            assert!(!plan.contains("SCAN") && !plan.contains("SORT"), "{plan}");
        }
        let all = plan(&store.connection, &Filter::default());
        assert!(
            all.contains("SCAN") && !all.contains("TEMP B-TREE"),
            "{all}"
        );
    }

    #[test]
    fn other_programs_can_read_but_not_write_while_the_write_lock_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prserv.sqlite3");
        let mut store = Sqlite::open(&path).unwrap().keeping_write_lock().unwrap();
        let tuple = Tuple::new("v", "all", "c");
        let row = NewRow {
            tuple: &tuple,
            value: Value::first(),
        };
        let other = Connection::open(&path).unwrap();
        other.busy_timeout(std::time::Duration::ZERO).unwrap();
        let count = || other.query_row("SELECT count(*) FROM PRMAIN", [], |row| row.get(0));
        for expected in [0, 1] {
            let error = other.execute("DELETE FROM PRMAIN", []).unwrap_err();
            assert!(error.to_string().contains("locked"), "{error}");
            assert_eq!(count(), Ok(expected));
            let _ = store.begin(TransactionMode::Write).unwrap();
            store.insert(std::slice::from_ref(&row)).unwrap();
            assert_eq!(store.commit().unwrap(), ExternalWrites::None);
        }
        let _ = store.begin(TransactionMode::Write).unwrap();
        store.rollback();
        assert_eq!(
            store.begin(TransactionMode::Write).unwrap(),
            ExternalWrites::None
        );
        assert!(other.execute("DELETE FROM PRMAIN", []).is_err());
        drop(store);
        assert_eq!(other.execute("DELETE FROM PRMAIN", []), Ok(1));
    }
}
