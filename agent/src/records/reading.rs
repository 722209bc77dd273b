//! What can be asked of the records, beside whoever writes them.

use config::BuildId;
use config::builds::{Build, ListQuery};
use config::task::Digest;
use rusqlite::{OptionalExtension, params};

use super::rows::{key, read, read_key};
use super::{Records, RecordsError, list};

impl Records {
    /// The record of a build.
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

    /// The newest builds, newest first; those before `before` when it is given.
    pub async fn newest(
        &self,
        before: Option<BuildId>,
        count_max: u32,
    ) -> Result<Vec<Build>, RecordsError> {
        let before = before.map_or(i64::MAX, key);
        self.database
            .read(move |connection| {
                connection
                    .prepare_cached("SELECT * FROM builds WHERE id < ?1 ORDER BY id DESC LIMIT ?2")?
                    .query_map(params![before, count_max], read)?
                    .collect()
            })
            .await
    }

    /// The builds that a listing asks for, in its order.
    pub async fn list(&self, listing: ListQuery) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(move |connection| list::list(connection, &listing))
            .await
    }

    /// All builds without an outcome, oldest first.
    pub async fn unfinished(&self) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(|connection| {
                connection
                    .prepare_cached("SELECT * FROM builds WHERE state <> 'finished' ORDER BY id")?
                    .query_map([], read)?
                    .collect()
            })
            .await
    }

    /// The builds that are over and of which something is held.
    pub async fn held(&self) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(|connection| {
                connection
                .prepare_cached(
                    "SELECT * FROM builds WHERE life ->> 'held' IS NOT NULL AND state = 'finished'",
                )?
                .query_map([], read)?
                .collect()
            })
            .await
    }

    /// The unfinished builds that do this, oldest first.
    pub async fn doing(&self, task: &Digest) -> Result<Vec<Build>, RecordsError> {
        let task = task.clone();
        self.database
            .read(move |connection| {
                let sql =
                    "SELECT * FROM builds WHERE state <> 'finished' AND task = ?1 ORDER BY id";
                let mut select = connection.prepare_cached(sql)?;
                select.query_map([task.as_str()], read)?.collect()
            })
            .await
    }

    /// The number of the newest build that was ever recorded, be it deleted since.
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

    /// The builds that ended last, the last first.
    pub async fn last_finished(&self, count: u32) -> Result<Vec<Build>, RecordsError> {
        self.database
            .read(move |connection| {
                let sql = "SELECT * FROM builds WHERE finished IS NOT NULL
                       ORDER BY finished DESC, id DESC LIMIT ?1";
                connection
                    .prepare_cached(sql)?
                    .query_map([count], read)?
                    .collect()
            })
            .await
    }
}
