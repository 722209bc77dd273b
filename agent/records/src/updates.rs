//! Updates of builds. Each is on disk when the call returns, and is published as an event.

use std::sync::Arc;

use config::builds::{Build, Progress, Request, Submitter, Typist};
use config::{BuildId, ToolchainName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Transaction, params};

use super::rows::{self, json, key, read};
use super::{EndRules, Records, RecordsError, concluded, feeds, notifications, task};

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

    /// Creates the builds that continue as copies of one, all or none, and returns them.
    pub async fn fork(&self, copies: Vec<Build>) -> Result<Vec<Build>, RecordsError> {
        let insert = self.database.write(move |transaction| {
            let insert = |mut copy: Build| {
                copy.id = rows::insert(transaction, &copy)?;
                save(transaction, &EndRules::default(), &copy)?;
                copy.saves += 1;
                Ok(copy)
            };
            copies
                .into_iter()
                .map(insert)
                .collect::<Result<Vec<_>, _>>()
        });
        let copies = insert.await?;
        for copy in &copies {
            self.telemetry.events.build(copy);
        }
        Ok(copies)
    }

    /// Saves the fields of a build that may change, except its progress, its typists and its
    /// cancellation.
    ///
    /// # Errors
    /// [`RecordsError::Conflict`] if the record was saved or deleted since `build` was read: then
    /// nothing is changed.
    pub async fn save(&self, build: &mut Build) -> Result<(), RecordsError> {
        let id = build.id;
        let (saved, rules) = (build.clone(), Arc::clone(&self.end_rules));
        let save = self
            .database
            .write(move |transaction| save(transaction, &rules, &saved));
        if !save.await? {
            return Err(RecordsError::Conflict(id));
        }
        build.saves += 1;
        self.publish(build);
        Ok(())
    }

    /// Reads a build, lets `change` change it, and saves it if `change` returns true: all in one
    /// transaction. Returns the build, and whether it was saved; `None` if there is no such
    /// build.
    pub async fn change(
        &self,
        id: BuildId,
        change: impl FnOnce(&mut Build) -> bool + Send + 'static,
    ) -> Result<Option<(Build, bool)>, RecordsError> {
        let rules = Arc::clone(&self.end_rules);
        let changed = self.database.write(move |transaction| {
            let sql = "SELECT * FROM builds WHERE id = ?1";
            let found = transaction.query_row(sql, [key(id)], read).optional()?;
            let Some(mut build) = found else {
                return Ok(None);
            };
            let is_changed = change(&mut build) && save(transaction, &rules, &build)?;
            build.saves += u64::from(is_changed);
            Ok(Some((build, is_changed)))
        });
        let changed = changed.await?;
        if let Some((build, true)) = &changed {
            self.publish(build);
        }
        Ok(changed)
    }

    /// Records that a cancellation of an unfinished build was accepted. [`Records::save`] does
    /// not overwrite it.
    pub async fn request_cancel(&self, id: BuildId) -> Result<(), RecordsError> {
        let request = self.database.write(move |transaction| {
            let sql = "UPDATE builds SET cancel_requested = 1 WHERE id = ?1 AND outcome IS NULL";
            transaction.prepare_cached(sql)?.execute([key(id)])
        });
        request.await.map(drop)
    }

    fn publish(&self, build: &Build) {
        self.telemetry.events.build(build);
        self.telemetry.metrics.build(build);
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

/// Saves a build, and records what is to be told and published about its end. Returns `false` if the
/// record was saved or deleted since it was read.
fn save(transaction: &Transaction<'_>, rules: &EndRules, build: &Build) -> rusqlite::Result<bool> {
    let has_rules = !rules.notify.is_empty() || !rules.feeds.is_empty();
    let ending = if !has_rules || build.outcome.is_none() {
        None
    } else {
        notifications::unfinished(transaction, build)?
    };
    let is_saved = rows::update(transaction, build)?;
    if let Some(is_canceled) = ending.filter(|_| is_saved) {
        notifications::record_end(transaction, &rules.notify, build, is_canceled)?;
        feeds::record_end(transaction, &rules.feeds, build)?;
    }
    if is_saved {
        concluded::forget(transaction, build)?;
    }
    Ok(is_saved)
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
