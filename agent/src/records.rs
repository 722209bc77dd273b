//! The records of builds: one SQLite file in the state directory.
//!
//! A change is on disk when the call that makes it returns. Each build is one row;
//! its lists are JSON in a column, since nothing asks for a part of them.

mod health;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use config::BuildId;
use config::builds::{Build, Request, State};
use config::task::Outcome;
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use health::Health;

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// The database refused.
    #[error("cannot use the records in {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The file is from a later version of ours.
    #[error(
        "{path} was written by a newer buildhost-agent (format {found}, this one knows {known})"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that we know.
        known: i64,
    },
    /// The thread that was to do the work died.
    #[error("the records could not be reached")]
    Gone,
}

/// What changes the format from each version to the next.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE builds (
        id        INTEGER PRIMARY KEY AUTOINCREMENT,
        machine   TEXT NOT NULL,
        toolchain TEXT NOT NULL,
        sources   TEXT NOT NULL,
        state     TEXT NOT NULL,
        outcome   TEXT,
        message   TEXT NOT NULL DEFAULT '',
        attempts  INTEGER NOT NULL DEFAULT 0,
        revision  INTEGER,
        submitted TEXT NOT NULL,
        started   TEXT,
        finished  TEXT,
        packages  TEXT NOT NULL DEFAULT '[]',
        artifacts TEXT NOT NULL DEFAULT '[]'
    ) STRICT;
    CREATE INDEX builds_unfinished ON builds (id) WHERE state <> 'finished';
",
    "
    ALTER TABLE builds ADD COLUMN contacted TEXT;
    ALTER TABLE builds ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;
",
];

/// The records; cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl Records {
    /// Opens the file, makes it when it is not there, and brings its format up to date.
    pub fn open(path: &Path) -> Result<Self, RecordsError> {
        let fault = |source| RecordsError::Database {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(fault)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .map_err(fault)?;
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(fault)?;
        let format = connection
            .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
            .map_err(fault)?;
        let done = usize::try_from(format).unwrap_or(usize::MAX);
        let Some(missing) = MIGRATIONS.get(done..) else {
            let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
            return Err(RecordsError::Newer {
                path: path.to_owned(),
                found: format,
                known,
            });
        };
        migrate(&mut connection, format, missing).map_err(fault)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Arc::new(Mutex::new(connection)),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records a new build and returns it.
    pub async fn submit(
        &self,
        request: Request,
        toolchain: config::ToolchainName,
        now: Timestamp,
    ) -> Result<Build, RecordsError> {
        self.with(move |connection| {
            connection.execute(
                "INSERT INTO builds (machine, toolchain, sources, state, submitted) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    request.machine.as_str(),
                    toolchain.as_str(),
                    json(&request.sources)?,
                    State::Queued.to_string(),
                    now.to_string(),
                ],
            )?;
            let id = connection.last_insert_rowid();
            connection.query_row("SELECT * FROM builds WHERE id = ?1", [id], read)
        })
        .await
    }

    /// The record of a build.
    pub async fn get(&self, id: BuildId) -> Result<Option<Build>, RecordsError> {
        let id = key(id);
        self.with(move |connection| {
            connection
                .query_row("SELECT * FROM builds WHERE id = ?1", [id], read)
                .optional()
        })
        .await
    }

    /// The newest builds, newest first; those before `before` when it is given.
    pub async fn newest(
        &self,
        before: Option<BuildId>,
        count_max: u32,
    ) -> Result<Vec<Build>, RecordsError> {
        let before = before.map_or(i64::MAX, key);
        self.with(move |connection| {
            connection
                .prepare_cached("SELECT * FROM builds WHERE id < ?1 ORDER BY id DESC LIMIT ?2")?
                .query_map(params![before, count_max], read)?
                .collect()
        })
        .await
    }

    /// All builds without an outcome, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Build>, RecordsError> {
        self.with(|connection| {
            connection
                .prepare_cached("SELECT * FROM builds WHERE state <> 'finished' ORDER BY id")?
                .query_map([], read)?
                .collect()
        })
        .await
    }

    /// Stores what may change of a build.
    pub async fn save(&self, build: &Build) -> Result<(), RecordsError> {
        let build = build.clone();
        self.with(move |connection| {
            connection.execute(
                "UPDATE builds SET state = ?2, outcome = ?3, message = ?4, attempts = ?5, revision = ?6,
                 started = ?7, finished = ?8, packages = ?9, artifacts = ?10, contacted = ?11, frozen = ?12
                 WHERE id = ?1",
                params![
                    key(build.id),
                    build.state.to_string(),
                    build.outcome.map(|outcome| outcome.to_string()),
                    build.message,
                    build.attempts,
                    build.revision.map(|revision| revision.0),
                    build.started.map(|time| time.to_string()),
                    build.finished.map(|time| time.to_string()),
                    json(&build.packages)?,
                    json(&build.artifacts)?,
                    build.contacted.map(|time| time.to_string()),
                    build.frozen,
                ],
            )
        })
        .await
        .map(|_| ())
    }

    /// Runs `work` where waiting for the disk holds nobody up.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let done = done.await.map_err(|_| RecordsError::Gone)?;
        done.map_err(|source| RecordsError::Database {
            path: self.path.clone(),
            source,
        })
    }
}

fn migrate(connection: &mut Connection, from: i64, missing: &[&str]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (sql, format) in missing.iter().zip(from + 1..) {
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", format)?;
    }
    transaction.commit()
}

fn key(id: BuildId) -> i64 {
    i64::try_from(id.0).unwrap_or(i64::MAX)
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn read(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: BuildId(u64::try_from(row.get::<_, i64>("id")?).unwrap_or_default()),
        machine: parsed(row, "machine")?,
        toolchain: parsed(row, "toolchain")?,
        sources: listed(row, "sources")?,
        state: row
            .get::<_, String>("state")
            .map(|word| State::from_word(&word))?
            .ok_or_else(|| unreadable("state", &"it is no state of a build"))?,
        outcome: maybe::<Outcome>(row, "outcome")?,
        message: row.get("message")?,
        attempts: row.get("attempts")?,
        revision: row.get::<_, Option<u32>>("revision")?.map(config::Revision),
        submitted: parsed(row, "submitted")?,
        started: maybe(row, "started")?,
        contacted: maybe(row, "contacted")?,
        frozen: row.get("frozen")?,
        finished: maybe(row, "finished")?,
        packages: listed(row, "packages")?,
        artifacts: listed(row, "artifacts")?,
    })
}

fn unreadable(column: &str, fault: &dyn Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        Type::Text,
        format!("column {column}: {fault}").into(),
    )
}

fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|fault: T::Err| unreadable(column, &fault))
}

fn maybe<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| {
        text.parse()
            .map_err(|fault: T::Err| unreadable(column, &fault))
    };
    text.map(parse).transpose()
}

fn listed<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|fault| unreadable(column, &fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap()
    }

    async fn submitted(records: &Records) -> Build {
        records
            .submit(request(), "default".parse().unwrap(), Timestamp::UNIX_EPOCH)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_record_outlives_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite3");
        let mut build = submitted(&Records::open(&path).unwrap()).await;
        build.state = State::Finished;
        build.outcome = Some(Outcome::Warning);
        build.message = "two\nlines".into();
        build.started = Some(Timestamp::UNIX_EPOCH);
        build.contacted = Some(Timestamp::UNIX_EPOCH);
        build.frozen = true;
        build.revision = Some(config::Revision(7));
        Records::open(&path).unwrap().save(&build).await.unwrap();
        assert_eq!(
            Records::open(&path).unwrap().get(build.id).await.unwrap(),
            Some(build)
        );
    }

    #[tokio::test]
    async fn builds_are_listed_newest_first_and_in_pages() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
        for _ in 0..3 {
            submitted(&records).await;
        }
        let ids = |builds: Vec<Build>| builds.iter().map(|build| build.id.0).collect::<Vec<_>>();
        assert_eq!(ids(records.newest(None, 2).await.unwrap()), [3, 2]);
        assert_eq!(ids(records.newest(Some(BuildId(2)), 2).await.unwrap()), [1]);
        assert_eq!(ids(records.unfinished().await.unwrap()), [1, 2, 3]);
    }

    #[test]
    fn a_file_of_a_later_version_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        let error = Records::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("newer buildhost-agent (format 99, this one knows 2)"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_no_database_stops_us() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        store::file::replace(&path, &[b'x'; 4096]).unwrap();
        assert!(matches!(
            Records::open(&path),
            Err(RecordsError::Database { .. })
        ));
    }
}
