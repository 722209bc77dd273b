//! Persistent storage of reports and users, in the tables of BitBake's own server, which can use
//! the same database at the same time.
//!
//! The statements are the same for SQLite and PostgreSQL. A store makes no decisions.

pub mod database;
mod postgres;
pub mod slice;
mod sql;
mod sqlite;
mod users;

use std::path::PathBuf;

pub use database::Database;
pub use sql::OpenMode;
pub use users::User;

use crate::equivalence::Rows;
use crate::row::{Mapping, Origin, RecordedReport, RecordedUnihash, Report, TaskKey};
use sql::{Param, Row, Sql};

/// The mode of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionMode {
    /// Reads only.
    Read,
    /// Reads and writes. No other server of this kind writes until the transaction ends.
    Write,
}

/// The error of a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database of a read-only store does not exist.
    #[error("there is no database {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The database has no tables of the service.
    #[error("{database} has no table unihashes_v3")]
    NoTables {
        /// The file or URL.
        database: String,
    },
    /// A row has a column of an unknown type.
    #[error("a column of the database has an unexpected type")]
    Type,
    /// A thread could not be started.
    #[error("cannot start a thread of the database")]
    Thread(#[source] std::io::Error),
    /// PostgreSQL returned an error or cannot be reached.
    #[error("PostgreSQL failed")]
    Postgres(#[from] ::postgres::Error),
    /// SQLite returned an error.
    #[error("SQLite failed")]
    Sqlite(#[from] rusqlite::Error),
}

/// The state of a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct GcStatus {
    /// The rows with the current mark.
    pub keep: u64,
    /// The rows without it.
    pub remove: u64,
    /// The current mark.
    pub mark: Option<String>,
}

/// A connection to a database, used by one thread.
pub struct Store {
    sql: Box<dyn Sql>,
}

impl Store {
    /// Begins a transaction that sees everything that was committed so far.
    pub fn begin(&mut self, mode: TransactionMode) -> Result<(), StoreError> {
        self.sql.begin(mode)
    }

    /// Commits the transaction. When this returns, the changes survive a power failure.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.sql.commit()
    }

    /// Rolls the transaction back. May be called after an error.
    pub fn rollback(&mut self) {
        self.sql.rollback();
    }

    /// Returns true if others may have written since the last call.
    pub fn has_external_writes(&mut self) -> Result<bool, StoreError> {
        self.sql.has_external_writes()
    }

    /// Returns true if a unihash is recorded.
    pub fn unihash_exists(&mut self, unihash: &str) -> Result<bool, StoreError> {
        let sql = "SELECT unihash FROM unihashes_v3 WHERE unihash = ?1 LIMIT 1";
        Ok(!self.sql.query(sql, &[Param::Text(unihash)])?.is_empty())
    }

    /// Returns the unihash of a task with the names of its columns.
    pub fn unihash_of(
        &mut self,
        method: &str,
        taskhash: &str,
    ) -> Result<Option<String>, StoreError> {
        let sql = "SELECT unihash FROM unihashes_v3 WHERE method = ?1 AND taskhash = ?2";
        let rows = self
            .sql
            .query(sql, &[Param::Text(method), Param::Text(taskhash)])?;
        rows.into_iter().next().map(|row| row.text(0)).transpose()
    }

    /// Returns the first report of a task that has a unihash.
    pub fn report_of(&mut self, task: &TaskKey) -> Result<Option<RecordedReport>, StoreError> {
        self.first_report("o.taskhash = ?2", &task.method, &task.taskhash, true)
    }

    /// Returns the first report with an outhash, of a task that has a unihash or of any task.
    pub fn report_with(
        &mut self,
        method: &str,
        outhash: &str,
        with_unihash: bool,
    ) -> Result<Option<RecordedReport>, StoreError> {
        self.first_report("o.outhash = ?2", method, outhash, with_unihash)
    }

    fn first_report(
        &mut self,
        condition: &str,
        method: &str,
        hash: &str,
        with_unihash: bool,
    ) -> Result<Option<RecordedReport>, StoreError> {
        let (columns, join) = if with_unihash {
            (", u.unihash, u.gc_mark", JOIN)
        } else {
            ("", "")
        };
        let created = self.sql.dialect().created;
        let sql = format!(
            r#"SELECT CAST(o.id AS bigint), o.method, o.taskhash, o.outhash, {created}, o.owner,
                o."PN", o."PV", o."PR", o.task, o.outhash_siginfo{columns}
            FROM outhashes_v2 o {join} WHERE o.method = ?1 AND {condition}
            ORDER BY o.created, o.id LIMIT 1"#
        );
        let rows = self
            .sql
            .query(&sql, &[Param::Text(method), Param::Text(hash)])?;
        rows.first().map(recorded_report).transpose()
    }

    /// Adds a report that was made by another server or at another time.
    fn insert_report(&mut self, report: &Report, created: &str) -> Result<bool, StoreError> {
        let Report {
            task,
            outhash,
            origin,
            ..
        } = report;
        let time = self.sql.dialect().time("?4");
        let sql = format!(
            r#"INSERT INTO outhashes_v2 (method, taskhash, outhash, created, owner, "PN", "PV", "PR",
                task, outhash_siginfo)
            VALUES (?1, ?2, ?3, {time}, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING"#
        );
        let optional = |text: &Option<String>| text.clone();
        let texts = [
            &origin.owner,
            &origin.pn,
            &origin.pv,
            &origin.pr,
            &origin.task,
            &origin.outhash_siginfo,
        ]
        .map(optional);
        let mut params = vec![
            Param::Text(&task.method),
            Param::Text(&task.taskhash),
            Param::Text(outhash),
            Param::Text(created),
        ];
        params.extend(texts.iter().map(|text| Param::Optional(text.as_deref())));
        Ok(self.sql.execute(&sql, &params)? > 0)
    }

    /// Returns the mark of the current garbage collection.
    pub fn gc_mark(&mut self) -> Result<Option<String>, StoreError> {
        let rows = self
            .sql
            .query("SELECT value FROM config WHERE name = 'gc-mark'", &[])?;
        let mark = rows.into_iter().next().map(|row| row.optional(0));
        Ok(mark.transpose()?.flatten())
    }

    /// Begins a garbage collection, or ends it with `None`.
    pub fn set_gc_mark(&mut self, mark: Option<&str>) -> Result<(), StoreError> {
        let sql = "INSERT INTO config (name, value) VALUES ('gc-mark', ?1)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.execute(sql, &[Param::Optional(mark)])?;
        Ok(())
    }

    /// Counts the rows with the current mark and without it.
    pub fn gc_status(&mut self) -> Result<GcStatus, StoreError> {
        let mark = self.gc_mark()?;
        let current = mark.as_deref().unwrap_or_default();
        let mut count = |comparison: &str| {
            let sql = format!("SELECT count(*) FROM unihashes_v3 WHERE gc_mark {comparison} ?1");
            let rows = self.sql.query(&sql, &[Param::Text(current)])?;
            count_of(&rows)
        };
        let (keep, remove) = (count("=")?, count("!=")?);
        Ok(GcStatus { keep, remove, mark })
    }

    /// Counts the rows of each table.
    pub fn usage(&mut self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let tables = ["unihashes_v3", "outhashes_v2", "users", "config"];
        let count = |table| {
            let rows = self
                .sql
                .query(&format!("SELECT count(*) FROM {table}"), &[])?;
            Ok((table, count_of(&rows)?))
        };
        tables.into_iter().map(count).collect()
    }
}

/// The join of reports with the unihashes of their tasks.
const JOIN: &str = "JOIN unihashes_v3 u ON u.method = o.method AND u.taskhash = o.taskhash";

impl Rows for Store {
    type Error = StoreError;

    fn unihash(&mut self, task: &TaskKey) -> Result<Option<String>, StoreError> {
        self.unihash_of(&task.method, &task.taskhash)
    }

    fn equivalent(&mut self, task: &TaskKey, outhash: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT u.unihash FROM outhashes_v2 o
            JOIN unihashes_v3 u ON u.method = o.method AND u.taskhash = o.taskhash
            WHERE o.method = ?1 AND o.outhash = ?2 AND o.taskhash != ?3
            ORDER BY o.created, o.id LIMIT 1";
        let params = [
            Param::Text(&task.method),
            Param::Text(outhash),
            Param::Text(&task.taskhash),
        ];
        let rows = self.sql.query(sql, &params)?;
        rows.into_iter().next().map(|row| row.text(0)).transpose()
    }

    fn add_report(&mut self, report: &Report) -> Result<bool, StoreError> {
        self.insert_report(report, &database::timestamp(jiff::Timestamp::now()))
    }

    fn add_unihash(&mut self, mapping: &Mapping) -> Result<(), StoreError> {
        let sql = "INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark)
            VALUES (?1, ?2, ?3, COALESCE((SELECT value FROM config WHERE name = 'gc-mark'), ''))
            ON CONFLICT DO NOTHING";
        let params = [
            Param::Text(&mapping.task.method),
            Param::Text(&mapping.task.taskhash),
            Param::Text(&mapping.unihash),
        ];
        self.sql.execute(sql, &params)?;
        Ok(())
    }
}

fn recorded_report(row: &Row) -> Result<RecordedReport, StoreError> {
    let unihash = if row.len() > 11 {
        Some(RecordedUnihash {
            unihash: row.text(11)?,
            gc_mark: row.text(12)?,
        })
    } else {
        None
    };
    Ok(RecordedReport {
        id: row.integer(0)?,
        method: row.text(1)?,
        taskhash: row.text(2)?,
        outhash: row.text(3)?,
        created: row.optional(4)?,
        origin: Origin {
            owner: row.optional(5)?,
            pn: row.optional(6)?,
            pv: row.optional(7)?,
            pr: row.optional(8)?,
            task: row.optional(9)?,
            outhash_siginfo: row.optional(10)?,
        },
        unihash,
    })
}

fn count_of(rows: &[Row]) -> Result<u64, StoreError> {
    let count = rows.first().ok_or(StoreError::Type)?.integer(0)?;
    u64::try_from(count).map_err(|_| StoreError::Type)
}
