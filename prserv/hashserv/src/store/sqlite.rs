//! A SQLite file of BitBake's own server, which can use the same file.
//!
//! The file is in WAL mode without exclusive locking: readers never wait for the writer.

use std::path::Path;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::sql::{Cell, Dialect, OpenMode, Param, Row, Sql};
use super::{StoreError, TransactionMode};

/// The maximum wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 64;

const DIALECT: Dialect = Dialect {
    created: "o.created",
    time_cast: ("", ""),
};

/// The tables and indexes of BitBake 2.19's server.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS unihashes_v3 (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL, taskhash TEXT NOT NULL, unihash TEXT NOT NULL, gc_mark TEXT NOT NULL,
        UNIQUE(method, taskhash));
    CREATE TABLE IF NOT EXISTS outhashes_v2 (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL, taskhash TEXT NOT NULL, outhash TEXT NOT NULL, created DATETIME,
        owner TEXT, PN TEXT, PV TEXT, PR TEXT, task TEXT, outhash_siginfo TEXT,
        UNIQUE(method, taskhash, outhash));
    CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        username TEXT NOT NULL, token TEXT NOT NULL, permissions TEXT NOT NULL, UNIQUE(username));
    CREATE TABLE IF NOT EXISTS config (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, value TEXT, UNIQUE(name));
    DROP INDEX IF EXISTS taskhash_lookup;
    DROP INDEX IF EXISTS outhash_lookup;
    DROP INDEX IF EXISTS taskhash_lookup_v2;
    DROP INDEX IF EXISTS outhash_lookup_v2;
    DROP INDEX IF EXISTS taskhash_lookup_v3;
    CREATE INDEX IF NOT EXISTS taskhash_lookup_v4 ON unihashes_v3 (method, taskhash);
    CREATE INDEX IF NOT EXISTS unihash_lookup_v1 ON unihashes_v3 (unihash);
    CREATE INDEX IF NOT EXISTS outhash_lookup_v3 ON outhashes_v2 (method, outhash);
    CREATE INDEX IF NOT EXISTS config_lookup ON config (name);";

/// Takes over the table of BitBake up to 2.2. A row that the new table has already is kept there.
const MIGRATION: &str = "
    INSERT OR IGNORE INTO unihashes_v3 (method, unihash, taskhash, gc_mark)
        SELECT method, unihash, taskhash, '' FROM unihashes_v2 ORDER BY id;
    DROP TABLE unihashes_v2;";

/// A connection to a SQLite file.
pub(super) struct Sqlite {
    connection: Connection,
    /// `PRAGMA data_version` at the last check. Commits of other connections change it.
    data_version: Option<i64>,
}

impl Sqlite {
    /// Opens a file: for writing, it and its tables are created if they are missing.
    pub(super) fn open(path: &Path, mode: OpenMode) -> Result<Self, StoreError> {
        let connection = match mode {
            OpenMode::Write => Connection::open(path)?,
            OpenMode::Read if !path.exists() => {
                return Err(StoreError::Missing {
                    path: path.to_owned(),
                });
            }
            OpenMode::Read => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                Connection::open_with_flags(path, flags)?
            }
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        match mode {
            OpenMode::Write => prepare_for_writing(&connection)?,
            OpenMode::Read if !connection.table_exists(None, "unihashes_v3")? => {
                return Err(StoreError::NoTables {
                    database: path.display().to_string(),
                });
            }
            OpenMode::Read => {}
        }
        Ok(Self {
            connection,
            data_version: None,
        })
    }
}

fn prepare_for_writing(connection: &Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let create = || {
        connection.execute_batch(SCHEMA)?;
        if connection.table_exists(None, "unihashes_v2")? {
            connection.execute_batch(MIGRATION)?;
            tracing::info!("migrated the table unihashes_v2");
        }
        connection.execute_batch("COMMIT")
    };
    create().inspect_err(|_| {
        let _ = connection.execute_batch("ROLLBACK");
    })?;
    Ok(())
}

impl Sql for Sqlite {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let changed = self
            .connection
            .prepare_cached(sql)?
            .execute(params_from_iter(params))?;
        Ok(changed as u64)
    }

    fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut found = statement.query(params_from_iter(params))?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let cells: Result<Vec<Cell>, StoreError> = (0..columns)
                .map(|index| cell(row.get_ref(index)?))
                .collect();
            rows.push(Row(cells?));
        }
        Ok(rows)
    }

    fn begin(&mut self, mode: TransactionMode) -> Result<(), StoreError> {
        let begin = match mode {
            TransactionMode::Read => "BEGIN",
            TransactionMode::Write => "BEGIN IMMEDIATE",
        };
        self.connection.prepare_cached(begin)?.execute([])?;
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

    fn has_external_writes(&mut self) -> Result<bool, StoreError> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        Ok(self.data_version.replace(version) != Some(version))
    }
}

impl ToSql for Param<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Text(text) | Self::Optional(Some(text)) => ToSqlOutput::from(*text),
            Self::Optional(None) => ToSqlOutput::Owned(Value::Null),
            Self::Integer(number) => ToSqlOutput::from(*number),
        })
    }
}

fn cell(value: ValueRef<'_>) -> Result<Cell, StoreError> {
    match value {
        ValueRef::Null => Ok(Cell::Null),
        ValueRef::Integer(number) => Ok(Cell::Integer(number)),
        ValueRef::Text(text) => Ok(Cell::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Real(_) | ValueRef::Blob(_) => Err(StoreError::Type),
    }
}
