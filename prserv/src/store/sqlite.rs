//! A SQLite file as BitBake's own server has it, `PRMAIN`, used in place and readable by it.
//!
//! The file is in WAL mode without exclusive locking, so that others may read it while we write.
//! Among our own servers one writes: it holds a lock on `FILE.lock`, because what it answers
//! from memory must not be outdated by a second one.

pub mod check;

mod legacy;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::{Filter, NewRow, Others, Purpose, Row, Store, StoreError};
use crate::rows::Rows;
use crate::tuple::{Package, Tuple};

const BUSY_SECONDS_MAX: Duration = Duration::from_secs(5);

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS PRMAIN (
    version TEXT NOT NULL,
    pkgarch TEXT NOT NULL,
    checksum TEXT NOT NULL,
    value TEXT,
    PRIMARY KEY (version, pkgarch, checksum, value))";

/// A connection to a SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// `PRAGMA data_version` at our last transaction: it moves when others commit.
    data_version: Option<i64>,
    /// Held as long as we may write. Declared last: the database is closed before it is freed.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens a file to give values from, making it and its table when they are missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_SECONDS_MAX)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute(SCHEMA, [])?;
        sync_directory(path)?;
        let taken = legacy::take_over(&mut connection)?;
        if taken != legacy::TakenOver::default() {
            tracing::info!(
                rows = taken.rows,
                junk = taken.junk,
                "took over BitBake's old table"
            );
        }
        Ok(Self {
            connection,
            data_version: None,
            _lock: Some(lock),
        })
    }

    /// Opens a file that must exist, to write.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            Self::open(path)
        } else {
            Err(missing(path))
        }
    }

    /// Opens a file that must exist, to look only; somebody else may be writing to it.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing {
                path: path.to_owned(),
            });
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_SECONDS_MAX)?;
        if !connection.table_exists(None, "PRMAIN")? {
            return Err(StoreError::NoTable {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            connection,
            data_version: None,
            _lock: None,
        })
    }
}

/// Copies a file, in use or not, as it is at one instant. The copy is whole or not there at all.
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

impl Store for Sqlite {
    fn begin(&mut self, purpose: Purpose) -> Result<Others, StoreError> {
        let begin = match purpose {
            Purpose::Read => "BEGIN",
            Purpose::Write => "BEGIN IMMEDIATE",
        };
        self.connection.prepare_cached(begin)?.execute([])?;
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let before = self.data_version.replace(version);
        Ok(if before == Some(version) {
            Others::Silent
        } else {
            Others::Wrote
        })
    }

    fn load(&mut self, packages: &[&Package]) -> Result<Vec<Rows>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT checksum, value FROM PRMAIN WHERE version = ? AND pkgarch = ?",
        )?;
        let mut loaded = Vec::with_capacity(packages.len());
        for package in packages {
            let mut rows = Rows::default();
            let mut found = statement.query(params![package.version, package.pkgarch])?;
            while let Some(row) = found.next()? {
                let checksum = row.get_ref(0)?.as_str().unwrap_or_default();
                match row
                    .get_ref(1)?
                    .as_str()
                    .ok()
                    .and_then(|text| text.parse().ok())
                {
                    Some(value) => rows.add(checksum, &value),
                    None => {
                        tracing::warn!(%package, checksum, "passing over a row without a value");
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

    fn commit(&mut self) -> Result<(), StoreError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn rollback(&mut self) {
        if self.connection.is_autocommit() {
            return;
        }
        if let Err(error) = self.connection.execute_batch("ROLLBACK") {
            tracing::error!(%error, "cannot roll back");
        }
    }

    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT version, pkgarch, checksum, value FROM PRMAIN
             WHERE (?1 IS NULL OR version = ?1) AND (?2 IS NULL OR pkgarch = ?2)
             ORDER BY version, pkgarch",
        )?;
        let mut found = statement.query(params![filter.version, filter.pkgarch])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let text = |column| {
                row.get::<_, Option<String>>(column)
                    .map(Option::unwrap_or_default)
            };
            let tuple = Tuple::new(text(0)?, text(1)?, text(2)?);
            let value = text(3)?.parse();
            if let Ok(value) = value {
                rows.push(Row { tuple, value });
            } else {
                tracing::warn!(%tuple, "passing over a row without a value");
            }
        }
        Ok(rows)
    }
}

fn missing(path: &Path) -> StoreError {
    StoreError::Missing {
        path: path.to_owned(),
    }
}

/// Takes the writer's lock, without waiting.
fn lock(database: &Path) -> Result<File, StoreError> {
    let mut path = OsString::from(database);
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| StoreError::File {
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: database.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes sure that the file itself, just made, survives a power cut.
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
