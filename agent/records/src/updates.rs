//! Updates of builds. Each is on disk when the call returns, and is published as an event.

use config::builds::{Build, Progress, Request, Submitter, Typist};
use config::{BuildId, ToolchainName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::rows::{self, json, key, read};
use super::{Records, RecordsError, concluded, task};

/// The largest number of recorded typists of a build: one is enough for its level.
const TYPISTS_MAX: u32 = 100;

impl Records {
    /// Creates a build and returns it.
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
        self.telemetry.events.build(&build);
        Ok(build)
    }

    /// Saves the fields of a build that may change, except its progress and its typists.
    pub async fn save(&self, build: &Build) -> Result<(), RecordsError> {
        let saved = build.clone();
        let save = self.database.write(move |transaction| {
            rows::update(transaction, &saved)?;
            concluded::forget(transaction, &saved)
        });
        save.await?;
        self.telemetry.events.build(build);
        self.telemetry.metrics.build(build);
        Ok(())
    }

    /// Saves the wait reasons of builds. Builds that are no longer queued stay unchanged.
    pub async fn set_wait_reasons(
        &self,
        reasons: Vec<(BuildId, String)>,
    ) -> Result<(), RecordsError> {
        if reasons.is_empty() {
            return Ok(());
        }
        let changed = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET message = ?2 WHERE id = ?1 AND state = 'queued'
                       RETURNING *";
            let mut update = transaction.prepare_cached(sql)?;
            let mut set =
                |(id, reason)| update.query_row(params![key(id), reason], read).optional();
            reasons
                .into_iter()
                .map(&mut set)
                .collect::<Result<Vec<_>, _>>()
        });
        for build in changed.await?.iter().flatten() {
            self.telemetry.events.build(build);
        }
        Ok(())
    }

    /// Saves the progress of a build. [`Records::save`] does not overwrite it.
    pub async fn save_progress(&self, id: BuildId, progress: Progress) -> Result<(), RecordsError> {
        let save = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET progress = ?2 WHERE id = ?1";
            let mut update = transaction.prepare_cached(sql)?;
            update.execute(params![key(id), json(&progress)?])
        });
        save.await?;
        self.telemetry.events.progress(id, progress);
        Ok(())
    }

    /// Records that a person types on the console of a build's guest. [`Records::save`] does not
    /// overwrite it. Of many, the first 100 are kept.
    pub async fn add_typist(&self, id: BuildId, typist: Typist) -> Result<(), RecordsError> {
        let add = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET typists = json_insert(typists, '$[#]', json(?2))
                       WHERE id = ?1 AND json_array_length(typists) < ?3";
            let mut update = transaction.prepare_cached(sql)?;
            update.execute(params![key(id), json(&typist)?, TYPISTS_MAX])
        });
        add.await.map(drop)
    }

    /// Reserves the numbers up to `taken`: the next build gets a higher one.
    pub async fn reserve_ids(&self, taken: BuildId) -> Result<(), RecordsError> {
        let taken = key(taken);
        let reserve = self.database.write(move |transaction| {
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
        reserve.await.map(drop)
    }
}

/// Returns the record of a new build, without a number.
pub(super) fn build_of(
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    now: Timestamp,
) -> Build {
    let task = task(&request.machine, &toolchain, &request.sources);
    Build::new(BuildId(0), request, toolchain, task, submitter, now)
}
