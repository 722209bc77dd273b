//! A PostgreSQL database that several servers share, with the tables of BitBake's own server.

use std::collections::HashMap;

use postgres::types::{ToSql, Type};
use postgres::{Client, NoTls, Statement};

use super::sql::{Cell, Dialect, OpenMode, Param, Row, Sql};
use super::{StoreError, TransactionMode};

/// The advisory lock of writers and of servers that create the tables. One writer at a time sees
/// the reports of all others, so that none misses an equivalence.
const WRITER_LOCK: i64 = 0x6861_7368_7365_7276;

const DIALECT: Dialect = Dialect {
    created: r#"to_char(o.created, 'YYYY-MM-DD"T"HH24:MI:SS.US')"#,
    time_cast: ("CAST(CAST(", " AS text) AS timestamp)"),
};

/// The tables and indexes of BitBake 2.19's server.
const SCHEMA: &str = r#"
    CREATE TABLE IF NOT EXISTS unihashes_v3 (
        id serial PRIMARY KEY,
        method text NOT NULL, taskhash text NOT NULL, unihash text NOT NULL, gc_mark text NOT NULL,
        UNIQUE (method, taskhash));
    CREATE TABLE IF NOT EXISTS outhashes_v2 (
        id serial PRIMARY KEY,
        method text NOT NULL, taskhash text NOT NULL, outhash text NOT NULL, created timestamp,
        owner text, "PN" text, "PV" text, "PR" text, task text, outhash_siginfo text,
        UNIQUE (method, taskhash, outhash));
    CREATE TABLE IF NOT EXISTS users (
        id serial PRIMARY KEY,
        username text NOT NULL, token text NOT NULL, permissions text, UNIQUE (username));
    CREATE TABLE IF NOT EXISTS config (
        id serial PRIMARY KEY, name text NOT NULL, value text, UNIQUE (name));
    CREATE INDEX IF NOT EXISTS taskhash_lookup_v4 ON unihashes_v3 (method, taskhash);
    CREATE INDEX IF NOT EXISTS unihash_lookup_v1 ON unihashes_v3 (unihash);
    CREATE INDEX IF NOT EXISTS outhash_lookup_v3 ON outhashes_v2 (method, outhash);
    CREATE INDEX IF NOT EXISTS config_lookup ON config (name);"#;

/// A connection that is reopened when it is lost.
pub(super) struct Postgres {
    url: String,
    connection: Option<Connection>,
}

struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Connects. Creates missing tables for writing; they must exist for reading.
    pub(super) fn open(url: &str, mode: OpenMode) -> Result<Self, StoreError> {
        let mut connection = Connection::open(url)?;
        let client = &mut connection.client;
        match mode {
            OpenMode::Write => {
                let mut transaction = client.transaction()?;
                transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&WRITER_LOCK])?;
                transaction.batch_execute(SCHEMA)?;
                transaction.commit()?;
            }
            OpenMode::Read => {
                let sql = "SELECT to_regclass('unihashes_v3') IS NOT NULL";
                if !client.query_one(sql, &[])?.get::<_, bool>(0) {
                    return Err(StoreError::NoTables {
                        database: without_password(url),
                    });
                }
            }
        }
        Ok(Self {
            url: url.to_owned(),
            connection: Some(connection),
        })
    }

    fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => Connection::open(&self.url)?,
        };
        Ok(self.connection.insert(connection))
    }
}

impl Connection {
    fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self {
            client: Client::connect(url, NoTls)?,
            statements: HashMap::new(),
        })
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(&sql.replace('?', "$"))?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Sql for Postgres {
    fn dialect(&self) -> &'static Dialect {
        &DIALECT
    }

    fn execute(&mut self, sql: &str, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let connection = self.connection()?;
        let statement = connection.prepare(sql)?;
        let params: Vec<_> = params.iter().map(to_sql).collect();
        Ok(connection.client.execute(&statement, &params)?)
    }

    fn query(&mut self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, StoreError> {
        let connection = self.connection()?;
        let statement = connection.prepare(sql)?;
        let params: Vec<_> = params.iter().map(to_sql).collect();
        let found = connection.client.query(&statement, &params)?;
        found.iter().map(row).collect()
    }

    fn begin(&mut self, mode: TransactionMode) -> Result<(), StoreError> {
        let connection = self.connection()?;
        match mode {
            TransactionMode::Read => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                connection.client.batch_execute(begin)?;
            }
            TransactionMode::Write => {
                let begin = format!(
                    "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_advisory_xact_lock({WRITER_LOCK})"
                );
                connection.client.batch_execute(&begin)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        // A connection that was lost within the transaction has rolled it back.
        let connection = self.connection.as_mut().ok_or(StoreError::Type)?;
        Ok(connection.client.batch_execute("COMMIT")?)
    }

    fn rollback(&mut self) {
        // Dropping the connection rolls back, also when the connection itself has failed.
        self.connection = None;
    }

    fn has_external_writes(&mut self) -> Result<bool, StoreError> {
        Ok(true)
    }
}

fn to_sql<'a>(param: &'a Param<'_>) -> &'a (dyn ToSql + Sync) {
    match param {
        Param::Text(text) => text,
        Param::Optional(text) => text,
        Param::Integer(number) => number,
    }
}

fn row(found: &postgres::Row) -> Result<Row, StoreError> {
    let cells = found.columns().iter().enumerate().map(|(index, column)| {
        Ok(match *column.type_() {
            Type::TEXT => found
                .try_get::<_, Option<String>>(index)?
                .map_or(Cell::Null, Cell::Text),
            Type::INT8 => found
                .try_get::<_, Option<i64>>(index)?
                .map_or(Cell::Null, Cell::Integer),
            _ => return Err(StoreError::Type),
        })
    });
    cells.collect::<Result<_, _>>().map(Row)
}

/// Removes the password and the options from a URL, so that it can be logged.
pub(super) fn without_password(url: &str) -> String {
    let url = url.split('?').next().unwrap_or_default();
    match url
        .split_once("://")
        .and_then(|(kind, rest)| Some((kind, rest.rsplit_once('@')?)))
    {
        Some((kind, (user, host))) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{kind}://{user}@{host}")
        }
        None => url.to_owned(),
    }
}
