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
        let insert = self.database.write(move |transaction| {
            build.id = rows::insert(transaction, &build)?;
            Ok(build)
        });
        let build = insert.await?;
        self.events.build(&build);
        Ok(build)
    }

    /// Stores what may change of a build, but for its progress.
    pub async fn save(&self, build: &Build) -> Result<(), RecordsError> {
        let saved = build.clone();
        let save = self
            .database
            .write(move |transaction| rows::update(transaction, &saved));
        save.await?;
        self.events.build(build);
        self.metrics.build(build);
        Ok(())
    }

    /// Stores what builds wait for; of those that wait no more, nothing is changed.
    pub async fn say(&self, words: Vec<(BuildId, String)>) -> Result<(), RecordsError> {
        if words.is_empty() {
            return Ok(());
        }
        let changed = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET message = ?2 WHERE id = ?1 AND state = 'queued'
                       RETURNING *";
            let mut update = transaction.prepare_cached(sql)?;
            let say = |(id, message)| update.query_row(params![key(id), message], read).optional();
            words.into_iter().map(say).collect::<Result<Vec<_>, _>>()
        });
        for build in changed.await?.iter().flatten() {
            self.events.build(build);
        }
        Ok(())
    }

    /// Stores what a build says of its progress, beside whoever holds its record.
    pub async fn note(&self, id: BuildId, progress: Progress) -> Result<(), RecordsError> {
        let note = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET progress = ?2 WHERE id = ?1";
            let mut update = transaction.prepare_cached(sql)?;
            update.execute(params![key(id), json(&progress)?])
        });
        note.await?;
        self.events.progress(id, progress);
        Ok(())
    }

    /// Numbers the next build above `taken`, if it would not be so anyway.
    pub async fn number_above(&self, taken: BuildId) -> Result<(), RecordsError> {
        let taken = key(taken);
        let number = self.database.write(move |transaction| {
            transaction.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'builds', 0
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'builds')",
                [],
            )?;
            transaction.execute(
                "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'builds' AND seq < ?1",
                [taken],
            )
        });
        number.await.map(drop)
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
