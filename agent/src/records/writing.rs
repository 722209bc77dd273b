//! What changes in the records: on the disk when the call returns, and told to all who
//! listen.

use config::builds::{Build, Progress, Request, Submitter};
use config::{BuildId, ToolchainName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{self, json, key, read};
use super::{Records, RecordsError, task};

impl Records {
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
            .database
            .write(move |connection| {
                let transaction = connection.transaction()?;
                build.id = rows::insert(&transaction, &build)?;
                transaction.commit()?;
                Ok(build)
            })
            .await?;
        self.events.build(&build);
        Ok(build)
    }

    /// Stores what may change of a build, but for its progress.
    pub async fn save(&self, build: &Build) -> Result<(), RecordsError> {
        let saved = build.clone();
        self.database
            .write(move |connection| {
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
        let changed = self.database.write(move |connection| {
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

    /// Stores what a build says of its progress, beside whoever holds its record.
    pub async fn note(&self, id: BuildId, progress: Progress) -> Result<(), RecordsError> {
        self.database
            .write(move |connection| {
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

    /// Numbers the next build above `taken`, if it would not be so anyway.
    pub async fn number_above(&self, taken: BuildId) -> Result<(), RecordsError> {
        let taken = key(taken);
        self.database
            .write(move |connection| {
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
}

/// The record of a build that has no number yet.
pub(super) fn build_of(
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    now: Timestamp,
) -> Build {
    let task = task(&request.machine, &toolchain, &request.sources);
    Build::new(BuildId(0), request, toolchain, task, submitter, now)
}
