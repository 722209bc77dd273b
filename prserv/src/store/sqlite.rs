//! A SQLite file with the table `PRMAIN` of BitBake's own server, which can use the same file.
//!
//! The file is in WAL mode without exclusive locking, so other processes may read it while it is
//! written. Only one `prserv` may write: it holds a lock on `FILE.lock`, because a second writer
//! would outdate its cache.

pub mod check;

mod legacy;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use super::{ExternalWrites, Filter, NewRow, Row, Store, StoreError, TransactionMode};
use crate::package_rows::PackageRows;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// The maximum wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// `PRAGMA data_version` at the last transaction. Commits of other connections change it.
    data_version: Option<i64>,
    /// The writer's lock. Declared last, so that the database is closed before it is released.
    _lock: Option<File>,
}

impl Sqlite {
    /// Opens a file for writing and creates the file and its table if they are missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let lock = lock(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute(SCHEMA, [])?;
        sync_directory(path)?;
        let migrated = legacy::migrate(&mut connection)?;
        if migrated != legacy::Migrated::default() {
            tracing::info!(
                rows = migrated.rows,
                unusable = migrated.unusable,
                "migrated BitBake's old table"
            );
        }
        Ok(Self {
            connection,
            data_version: None,
            _lock: Some(lock),
        })
    }

    /// Opens an existing file for writing.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            Self::open(path)
        } else {
            Err(missing(path))
        }
    }

    /// Opens an existing file for reading. Another process may be writing to it.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(missing(path));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
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

impl Store for Sqlite {
    fn begin(&mut self, mode: TransactionMode) -> Result<ExternalWrites, StoreError> {
        let begin = match mode {
            TransactionMode::Read => "BEGIN",
            TransactionMode::Write => "BEGIN IMMEDIATE",
        };
        self.connection.prepare_cached(begin)?.execute([])?;
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

    fn commit(&mut self) -> Result<(), StoreError> {
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
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
            if let Ok(value) = Value::from_record(&text(3)?) {
                rows.push(Row { tuple, value });
            } else {
                tracing::warn!(%tuple, "ignoring a row without a valid value");
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

/// Acquires the writer's lock without waiting.
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
