//! Queries of builds. They do not block on the writer. Lists leave out records that cannot be
//! read.

use config::builds::{Build, ListQuery};
use config::task::Digest;
use config::{BuildId, MachineName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{key, read, read_key, readable, time};
use super::{Records, RecordsError, list};

impl Records {
    /// Returns the record of a build.
    pub async fn get(&self, id: BuildId) -> Result<Option<Build>, RecordsError> {
        let id = key(id);
        self.database
            .read(move |connection| {
                connection
                    .query_row("SELECT * FROM builds WHERE id = ?1", [id], read)
                    .optional()
            })
            .await
    }

    /// Returns those of some builds that exist.
    pub async fn several(&self, ids: &[BuildId]) -> Result<Vec<Build>, RecordsError> {
        let ids: Vec<_> = ids.iter().map(|id| key(*id)).collect();
        let ids = serde_json::json!(ids).to_string();
        self.database
            .read(move |connection| {
                let sql = "SELECT * FROM builds WHERE id IN (SELECT value FROM json_each(?1))
                           ORDER BY id";
                let mut select = connection.prepare_cached(sql)?;
                select.query_map([ids], read)?.collect()
            })
            .await
    }

    /// Returns the newest builds, newest first; with `before`, those with a smaller number.
    pub async fn newest(
        &self,
        before: Option<BuildId>,
        count_max: u32,
    ) -> Result<Vec<Build>, RecordsError> {
        let before = before.map_or(i64::MAX, key);
        self.database
            .read(move |connection| {
                let sql = "SELECT * FROM builds WHERE id < ?1 ORDER BY id DESC";
                let mut select = connection.prepare_cached(sql)?;
                let builds = readable(select.query_map([before], read)?);
                builds.take(count_max as usize).collect()
            })
            .await
    }

    /// Returns the builds that match a listing, in its order.
    pub async fn list(&self, listing: ListQuery) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(move |connection| list::list(connection, &listing))
            .await
    }

    /// Returns all builds without an outcome, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(|connection| {
                let sql = "SELECT * FROM builds WHERE state <> 'finished' ORDER BY id";
                let mut select = connection.prepare_cached(sql)?;
                readable(select.query_map([], read)?).collect()
            })
            .await
    }

    /// Returns the finished builds with a hold.
    pub async fn held(&self) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(|connection| {
                let sql = "SELECT * FROM builds WHERE life ->> 'held' IS NOT NULL
                           AND state = 'finished'";
                let mut select = connection.prepare_cached(sql)?;
                readable(select.query_map([], read)?).collect()
            })
            .await
    }

    /// Returns the unfinished builds with this task hash, oldest first.
    pub async fn with_task(&self, task: &Digest) -> Result<Vec<Build>, RecordsError> {
        let task = task.clone();
        self.database
            .read(move |connection| {
                let sql =
                    "SELECT * FROM builds WHERE state <> 'finished' AND task = ?1 ORDER BY id";
                let mut select = connection.prepare_cached(sql)?;
                readable(select.query_map([task.as_str()], read)?).collect()
            })
            .await
    }

    /// Returns the builds of a machine that have run on a revision on trial, oldest first: those of
    /// the trial that began at `since`.
    pub async fn of_trial(
        &self,
        machine: &MachineName,
        since: Timestamp,
    ) -> Result<Vec<Build>, RecordsError> {
        let machine = machine.clone();
        self.database
            .read(move |connection| {
                let sql = "SELECT * FROM builds WHERE machine = ?1 AND trial <> 'null'
                           AND (finished IS NULL OR finished >= ?2) ORDER BY id";
                let mut select = connection.prepare_cached(sql)?;
                let rows = select.query_map(params![machine.as_str(), time(since)], read)?;
                let mut builds: Vec<Build> = readable(rows).collect::<rusqlite::Result<_>>()?;
                builds.retain(|build| build.trial.as_ref().is_some_and(|it| it.since == since));
                Ok(builds)
            })
            .await
    }

    /// Returns the number of the newest build ever recorded, even if it was deleted.
    pub async fn newest_id(&self) -> Result<Option<BuildId>, RecordsError> {
        self.database
            .read(|connection| {
                let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'builds'";
                let newest = connection
                    .prepare_cached(sql)?
                    .query_row([], |row| row.get(0));
                Ok(newest.optional()?.map(read_key))
            })
            .await
    }

    /// Returns the builds that finished last, latest first.
    pub async fn last_finished(&self, count: u32) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(move |connection| {
                let sql = "SELECT * FROM builds WHERE finished IS NOT NULL
                       ORDER BY finished DESC, id DESC";
                let mut select = connection.prepare_cached(sql)?;
                let builds = readable(select.query_map([], read)?);
                builds.take(count as usize).collect()
            })
            .await
    }
}
