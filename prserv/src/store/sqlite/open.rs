//! The opening of files: the writer's lock, the schema, and files that can only be read.

use std::fmt::Write;
use std::fs::{File, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::super::{ExternalWrites, StoreError, error_text};
use super::medium::{ReadMethod, Stamp, can_create_beside, read_method, refuse_shared};
use super::{Sqlite, beside, legacy, sync_directory};

/// The maximum wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS PRMAIN (
    version TEXT NOT NULL,
    pkgarch TEXT NOT NULL,
    checksum TEXT NOT NULL,
    value TEXT,
    PRIMARY KEY (version, pkgarch, checksum, value))";

impl Sqlite {
    /// Opens a file for writing and creates the file and its table if they are missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        refuse_shared(path)?;
        let lock = lock(path)?;
        let mut connection = create(path).map_err(|error| in_use_or(error, path))?;
        sync_directory(path)?;
        let migrated = legacy::migrate(&mut connection)?;
        if migrated != legacy::Migrated::default() {
            tracing::info!(
                rows = migrated.rows,
                unusable = migrated.unusable,
                "migrated BitBake's old table"
            );
        }
        Ok(Self::new(path, connection, None, Some(lock)))
    }

    /// Opens an existing file for writing.
    pub fn open_existing(path: &Path) -> Result<Self, StoreError> {
        if path.exists() {
            Self::open(path)
        } else {
            Err(missing(path))
        }
    }

    /// Opens an existing file for reading. Another process may be writing to it. Where nothing can
    /// be created beside it, such as on a read-only file system, nothing is.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(missing(path));
        }
        refuse_shared(path)?;
        let method = read_method(path);
        let opened = connect_for_reading(path, method);
        let (connection, stamp) = opened.map_err(|error| match error {
            StoreError::Sqlite(error) => cannot_open(path, &error),
            error => error,
        })?;
        Ok(Self::new(path, connection, stamp, None))
    }

    fn new(path: &Path, connection: Connection, stamp: Option<Stamp>, lock: Option<File>) -> Self {
        Self {
            connection,
            path: path.to_owned(),
            data_version: None,
            keeps_write_lock: false,
            external_writes: ExternalWrites::None,
            stamp,
            _lock: lock,
        }
    }
}

fn create(path: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute(SCHEMA, [])?;
    Ok(connection)
}

/// Returns the connection, and the state of the file if it is read without locks.
fn connect_for_reading(
    path: &Path,
    method: ReadMethod,
) -> Result<(Connection, Option<Stamp>), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let (connection, stamp) = match method {
        ReadMethod::Locked => (Connection::open_with_flags(path, flags)?, None),
        ReadMethod::Immutable => {
            let stamp = Stamp::of(path).map_err(|source| StoreError::File {
                path: path.to_owned(),
                source,
            })?;
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            let uri = immutable_uri(&std::path::absolute(path).unwrap_or_else(|_| path.into()));
            (Connection::open_with_flags(uri, flags)?, Some(stamp))
        }
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    if connection.table_exists(None, "PRMAIN")? {
        Ok((connection, stamp))
    } else {
        Err(StoreError::NoTable {
            path: path.to_owned(),
        })
    }
}

/// Returns the URI of a file that no process changes, <https://www.sqlite.org/uri.html>.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            // Writing to a String cannot fail.
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// Returns the error of a file that cannot be opened for reading, with the remedy where there is
/// one: a write-ahead log cannot be read without the files that SQLite creates beside it.
fn cannot_open(path: &Path, error: &rusqlite::Error) -> StoreError {
    let log = beside(path, "-wal");
    let path = path.to_owned();
    if log.exists() && can_create_beside(&path).is_err() {
        StoreError::LogUnreadable { path, log }
    } else {
        let reason = error_text(error);
        StoreError::Open { path, reason }
    }
}

fn missing(path: &Path) -> StoreError {
    StoreError::Missing {
        path: path.to_owned(),
    }
}

/// Returns the error of a file that another program locks, or else the error itself.
pub(super) fn in_use_or(error: rusqlite::Error, path: &Path) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::InUse {
            path: path.to_owned(),
        },
        _ => error.into(),
    }
}

/// Acquires the writer's lock without waiting.
fn lock(database: &Path) -> Result<File, StoreError> {
    let path = beside(database, ".lock");
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

#[cfg(test)]
mod tests {
    use super::super::super::{Filter, Store};
    use super::*;

    fn values(reader: &mut Sqlite) -> usize {
        reader.rows(&Filter::default()).unwrap().len()
    }

    /// Inserts so many rows that the file grows.
    fn insert(path: &Path, rows: usize) {
        let mut connection = Connection::open(path).unwrap();
        let transaction = connection.transaction().unwrap();
        for number in 0..rows {
            let row = "INSERT INTO PRMAIN VALUES ('v', 'all', ?1, ?1)";
            transaction.execute(row, [number.to_string()]).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn the_uri_of_a_file_has_no_special_characters_of_its_name() {
        assert_eq!(
            immutable_uri(Path::new("/a b/c?d#e%f.sqlite3")),
            "file:/a%20b/c%3Fd%23e%25f.sqlite3?immutable=1"
        );
    }

    #[test]
    fn an_immutable_file_is_read_and_a_change_of_it_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a file?.sqlite3");
        drop(Sqlite::open(&path).unwrap());
        let (connection, stamp) = connect_for_reading(&path, ReadMethod::Immutable).unwrap();
        assert!(!beside(&path, "-shm").exists());
        let mut reader = Sqlite::new(&path, connection, stamp, None);
        assert_eq!(values(&mut reader), 0);
        insert(&path, 200);
        assert_eq!(values(&mut reader), 200);
    }
}
