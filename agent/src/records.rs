//! The records of builds: one SQLite file in the state directory.
//!
//! A change is on disk when the call that makes it returns. Each build is one row;
//! its lists are JSON in a column, but for the names by which it is found.

mod format;
mod once;
mod rows;

mod health;
mod list;
mod removal;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use config::builds::{Build, Listing, Progress, Request, Submitter};
use config::task::{Digest, Source};
use config::{BuildId, MachineName, ToolchainName};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use crate::events::Events;
use crate::metrics::Metrics;
use format::MIGRATIONS;
use rows::{json, key, read, read_key};

pub use health::Health;
pub use once::{Once, Submitted};
pub use removal::{Removal, Summary};

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
        found: usize,
        /// The newest format that we know.
        known: usize,
    },
    /// The thread that was to do the work died.
    #[error("the records could not be reached")]
    Gone,
}

/// The records; cheap to clone.
#[derive(Debug, Clone)]
pub struct Records {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
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
        connection
            .pragma_update(None, "foreign_keys", true)
            .map_err(fault)?;
        let format: u32 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(fault)?;
        let found = usize::try_from(format).unwrap_or(usize::MAX);
        let known = MIGRATIONS.len();
        if found > known {
            let path = path.to_owned();
            return Err(RecordsError::Newer { path, found, known });
        }
        format::migrate(&mut connection, found).map_err(fault)?;
        Ok(Self {
            path: path.to_owned(),
            connection: Arc::new(Mutex::new(connection)),
            events: Arc::default(),
            metrics: Arc::default(),
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
        toolchain: ToolchainName,
        submitter: Submitter,
        now: Timestamp,
    ) -> Result<Build, RecordsError> {
        let mut build = build_of(request, toolchain, submitter, now);
        let build = self
            .with(move |connection| {
                let transaction = connection.transaction()?;
                build.id = rows::insert(&transaction, &build)?;
                transaction.commit()?;
                Ok(build)
            })
            .await?;
        self.events.build(&build);
        Ok(build)
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

    /// The builds that a listing asks for, in its order.
    pub async fn list(&self, listing: Listing) -> Result<Vec<Build>, RecordsError> {
        self.with(move |connection| list::list(connection, &listing))
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

    /// The builds that are over and of which something is held.
    pub async fn held(&self) -> Result<Vec<Build>, RecordsError> {
        self.with(|connection| {
            connection
                .prepare_cached(
                    "SELECT * FROM builds WHERE life ->> 'held' IS NOT NULL AND state = 'finished'",
                )?
                .query_map([], read)?
                .collect()
        })
        .await
    }

    /// Stores what may change of a build, but for its progress.
    pub async fn save(&self, build: &Build) -> Result<(), RecordsError> {
        let saved = build.clone();
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            rows::update(&transaction, &saved)?;
            transaction.commit()
        })
        .await?;
        self.events.build(build);
        self.metrics.build(build);
        Ok(())
    }

    /// Stores what builds wait for; of those that wait no more, nothing is changed.
    pub async fn say(&self, words: Vec<(BuildId, String)>) -> Result<(), RecordsError> {
        if words.is_empty() {
            return Ok(());
        }
        let changed = self.with(move |connection| {
            let transaction = connection.transaction()?;
            let sql = "UPDATE builds SET message = ?2 WHERE id = ?1 AND state = 'queued'
                       RETURNING *";
            let mut update = transaction.prepare_cached(sql)?;
            let say = |(id, message)| update.query_row(params![key(id), message], read).optional();
            let changed: Result<Vec<_>, _> = words.into_iter().map(say).collect();
            let changed = changed?;
            drop(update);
            transaction.commit()?;
            Ok(changed)
        });
        for build in changed.await?.iter().flatten() {
            self.events.build(build);
        }
        Ok(())
    }

    /// The unfinished builds that do this, oldest first.
    pub async fn doing(&self, task: &Digest) -> Result<Vec<Build>, RecordsError> {
        let task = task.clone();
        self.with(move |connection| {
            let sql = "SELECT * FROM builds WHERE state <> 'finished' AND task = ?1 ORDER BY id";
            let mut select = connection.prepare_cached(sql)?;
            select.query_map([task.as_str()], read)?.collect()
        })
        .await
    }

    /// Stores what a build says of its progress, beside whoever holds its record.
    pub async fn note(&self, id: BuildId, progress: Progress) -> Result<(), RecordsError> {
        self.with(move |connection| {
            let sql = "UPDATE builds SET progress = ?2 WHERE id = ?1";
            connection
                .prepare_cached(sql)?
                .execute(params![key(id), json(&progress)?])
                .map(drop)
        })
        .await?;
        self.events.progress(id, progress);
        Ok(())
    }

    /// The number of the newest build that was ever recorded, be it deleted since.
    pub async fn newest_id(&self) -> Result<Option<BuildId>, RecordsError> {
        self.with(|connection| {
            let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'builds'";
            let newest = connection
                .prepare_cached(sql)?
                .query_row([], |row| row.get(0));
            Ok(newest.optional()?.map(read_key))
        })
        .await
    }

    /// Numbers the next build above `taken`, if it would not be so anyway.
    pub async fn number_above(&self, taken: BuildId) -> Result<(), RecordsError> {
        let taken = rows::key(taken);
        self.with(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'builds', 0
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'builds')",
                [],
            )?;
            transaction.execute(
                "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'builds' AND seq < ?1",
                [taken],
            )?;
            transaction.commit()
        })
        .await
    }

    /// The builds that ended last, the last first.
    pub async fn last_finished(&self, count: u32) -> Result<Vec<Build>, RecordsError> {
        self.with(move |connection| {
            let sql = "SELECT * FROM builds WHERE finished IS NOT NULL
                       ORDER BY finished DESC, id DESC LIMIT ?1";
            connection
                .prepare_cached(sql)?
                .query_map([count], read)?
                .collect()
        })
        .await
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// What is told of every change.
    pub fn events(&self) -> &Events {
        &self.events
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

/// The record of a build that has no number yet.
fn build_of(
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    now: Timestamp,
) -> Build {
    let task = task(&request.machine, &toolchain, &request.sources);
    Build::new(BuildId(0), request, toolchain, task, submitter, now)
}

/// The hash of what is asked of a guest; the order of the sources makes no difference.
pub(crate) fn task(machine: &MachineName, toolchain: &ToolchainName, sources: &[Source]) -> Digest {
    let mut sources: Vec<_> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    let mut hash = store::file::Hash::default();
    // No name holds the sign that parts them.
    for part in [machine.as_str(), toolchain.as_str()] {
        hash.add(part.as_bytes());
        hash.add(b"\n");
    }
    for source in sources {
        hash.add(format!("{} {}\n", source.sha256, source.name).as_bytes());
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use config::builds::{Count, GuestKind, Made, Phase, Priority, State};
    use config::task::Outcome;

    use super::*;

    fn request() -> Request {
        serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap()
    }

    async fn submitted(records: &Records) -> Build {
        records
            .submit(
                request(),
                "default".parse().unwrap(),
                Submitter::root(),
                Timestamp::UNIX_EPOCH,
            )
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_record_outlives_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite3");
        let mut build = submitted(&Records::open(&path).unwrap()).await;
        let second = |second| Timestamp::from_second(second).unwrap();
        build.enter(State::Starting, second(1));
        build.enter(State::Finished, second(2));
        build.outcome = Some(Outcome::Warning);
        build.message = "two\nlines".into();
        build.priority = Priority(-3);
        build.not_before = Some(second(3));
        build.revision = Some(config::Revision(7));
        build.made = Some(Made {
            revision_uuid: "u-u".into(),
            contents_sha256: None,
            toolchain_sha256: "0".repeat(64).parse().unwrap(),
        });
        build.guest = Some(GuestKind::Tcg);
        build.frozen = true;
        build.usage.cpu_milliseconds = Some(4);
        build.progress.task = Count { done: 1, total: 2 };
        let records = Records::open(&path).unwrap();
        records.note(build.id, build.progress).await.unwrap();
        records.save(&build).await.unwrap();
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

    #[tokio::test]
    async fn no_number_that_is_taken_is_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
        records.number_above(BuildId(6)).await.unwrap();
        assert_eq!(submitted(&records).await.id, BuildId(7));
        records.number_above(BuildId(3)).await.unwrap();
        assert_eq!(submitted(&records).await.id, BuildId(8));
    }

    #[tokio::test]
    async fn a_file_of_the_first_version_is_brought_up_to_date() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let fixture = include_bytes!("records/fixtures/format-1.sqlite3");
        store::file::replace(&path, fixture).unwrap();
        let records = Records::open(&path).unwrap();
        let build = records.get(BuildId(1)).await.unwrap().unwrap();
        assert_eq!(build.submitter, Submitter::root());
        assert_eq!(build.target.as_str(), "hello");
        assert_eq!(
            build.submitted.to_string(),
            "2026-11-20T10:00:00.123456789Z"
        );
        assert_eq!(build.packages[0].revision, "r0.2");
        let states = |phase: &Phase| phase.state;
        let expected = [State::Queued, State::Starting, State::Finished];
        assert_eq!(
            build.phases.iter().map(states).collect::<Vec<_>>(),
            expected
        );
        let waiting = records.unfinished().await.unwrap();
        let ids: Vec<_> = waiting.iter().map(|build| build.id.0).collect();
        assert_eq!(ids, [4]);
        assert_eq!(waiting[0].task, build.task);
        assert_eq!(records.newest_id().await.unwrap(), Some(BuildId(6)));
        assert_eq!(submitted(&records).await.id, BuildId(7));
    }

    #[test]
    fn a_task_is_another_one_when_any_of_it_is() {
        let digest = |sources: &str, machine: &str| {
            let sources: Vec<Source> = serde_json::from_str(sources).unwrap();
            task(
                &machine.parse().unwrap(),
                &"default".parse().unwrap(),
                &sources,
            )
        };
        let source = |name: &str, digit: &str| {
            format!(r#"{{"name": "{name}", "sha256": "{}"}}"#, digit.repeat(64))
        };
        let (a, b) = (source("a", "1"), source("b", "2"));
        let ab = digest(&format!("[{a}, {b}]"), "linux");
        assert_eq!(ab, digest(&format!("[{b}, {a}]"), "linux"));
        for other in [
            digest(&format!("[{a}]"), "linux"),
            digest(&format!("[{a}, {b}]"), "linux2"),
            digest(&format!("[{a}, {}]", source("b", "1")), "linux"),
            digest(&format!("[{a}, {}]", source("c", "2")), "linux"),
        ] {
            assert_ne!(ab, other);
        }
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
            error.contains("newer buildhost-agent (format 99, this one knows 6)"),
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
