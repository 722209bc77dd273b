//! The deletion of builds, and the facts that the retention plan needs.

use std::collections::BTreeSet;

use config::BuildId;
use config::task::{Digest, Source};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{from_json, key, optional, read_key, readable};
use super::{Records, RecordsError};

/// The result of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The record is deleted.
    Done,
    /// There is no such build.
    Missing,
    /// Refused: the build has no outcome yet.
    Unfinished,
    /// Refused: the build is held.
    Held,
    /// Refused: an unfinished build depends on it.
    Awaited,
    /// Refused: its result was not reported to its controller yet.
    Unreported,
}

/// The facts about a build that the retention plan needs.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its number.
    pub id: BuildId,
    /// The time at which its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// Its sources.
    pub sources: BTreeSet<Digest>,
    /// The builds that it depends on.
    pub after: Vec<BuildId>,
    /// True if it is held, or if its result was not reported to its controller yet.
    pub held: bool,
}

impl Records {
    /// Deletes the record of a finished build. Remembers that its directory must be deleted,
    /// until [`Records::forget_deleted`].
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn delete(&self, id: BuildId) -> Result<Deletion, RecordsError> {
        let delete = self
            .database
            .write(move |transaction| delete(transaction, id));
        let deletion = delete.await?;
        if deletion == Deletion::Done {
            self.telemetry.events.deleted(id);
        }
        Ok(deletion)
    }

    /// Returns the builds whose records are deleted and whose directories may still exist.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn deleted_builds(&self) -> Result<BTreeSet<BuildId>, RecordsError> {
        self.database
            .read(|connection| {
                connection
                    .prepare_cached("SELECT id FROM removed")?
                    .query_map([], |row| row.get(0).map(read_key))?
                    .collect()
            })
            .await
    }

    /// Forgets a deleted build whose directory was deleted, too.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn forget_deleted(&self, id: BuildId) -> Result<(), RecordsError> {
        let forget = self.database.write(move |transaction| {
            let sql = "DELETE FROM removed WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute([key(id)])
        });
        forget.await.map(drop)
    }

    /// Returns the facts about all builds whose records can be read. Does not block other readers or the writer.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>, RecordsError> {
        let read = || summaries(&self.database.reader()?);
        read().map_err(|source| self.database.fault(source))
    }

    /// Returns true if a schedule, or a build with a number above `since`, has this source.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn names_source(
        &self,
        digest: &Digest,
        since: Option<BuildId>,
    ) -> Result<bool, RecordsError> {
        let digest = digest.as_str().to_owned();
        self.database
            .read(move |connection| {
                let sql =
                    "SELECT EXISTS (SELECT 1 FROM builds WHERE id > ?1 AND instr(sources, ?2))
                     OR EXISTS (SELECT 1 FROM schedules WHERE instr(build, ?2))";
                connection
                    .prepare_cached(sql)?
                    .query_row(params![since.map_or(0, key), digest], |row| row.get(0))
            })
            .await
    }
}

fn delete(transaction: &Transaction<'_>, id: BuildId) -> rusqlite::Result<Deletion> {
    let deletion = check_deletable(transaction, id)?;
    if deletion == Deletion::Done {
        transaction.execute("DELETE FROM builds WHERE id = ?1", [key(id)])?;
        transaction.execute("DELETE FROM feed_builds WHERE build = ?1", [key(id)])?;
        transaction.execute("INSERT OR IGNORE INTO removed VALUES (?1)", [key(id)])?;
    }
    Ok(deletion)
}

/// Returns the result that a deletion would have now.
fn check_deletable(connection: &Connection, id: BuildId) -> rusqlite::Result<Deletion> {
    let sql = "SELECT state = 'finished', life ->> 'held' IS NOT NULL, EXISTS (
                   SELECT 1 FROM builds AS other, json_each(other.after)
                   WHERE other.state != 'finished' AND json_each.value = ?1), EXISTS (
                   SELECT 1 FROM leases WHERE build = ?1 AND settled IS NULL)
               FROM builds WHERE id = ?1";
    let found = connection.prepare_cached(sql)?.query_row([key(id)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    Ok(match found.optional()? {
        None => Deletion::Missing,
        Some((false, _, _, _)) => Deletion::Unfinished,
        Some((true, true, _, _)) => Deletion::Held,
        Some((true, false, true, _)) => Deletion::Awaited,
        Some((true, false, false, true)) => Deletion::Unreported,
        Some((true, false, false, false)) => Deletion::Done,
    })
}

fn summaries(connection: &Connection) -> rusqlite::Result<Vec<Summary>> {
    let sql = "SELECT id, finished, sources, after, life ->> 'held' IS NOT NULL OR EXISTS (
                   SELECT 1 FROM leases WHERE build = builds.id AND settled IS NULL)
               FROM builds";
    let summary = |row: &rusqlite::Row<'_>| {
        let sources: Vec<Source> = from_json(row, "sources")?;
        Ok(Summary {
            id: read_key(row.get("id")?),
            finished: optional(row, "finished")?,
            sources: sources.into_iter().map(|source| source.sha256).collect(),
            after: from_json(row, "after")?,
            held: row.get(4)?,
        })
    };
    let mut select = connection.prepare(sql)?;
    readable(select.query_map([], summary)?).collect()
}

#[cfg(test)]
mod tests {
    use config::builds::{Hold, HoldKind, ListQuery, State, Submitter};

    use super::*;
    use telemetry::Telemetry;

    #[tokio::test]
    async fn a_deleted_build_is_gone_and_its_number_is_not_reused() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let digest = "a".repeat(64);
        let text = format!(
            r#"{{"machine": "linux", "sources": [{{"name": "x", "sha256": "{digest}"}}]}}"#
        );
        let submit = || {
            let request = serde_json::from_str(&text).unwrap();
            let toolchain = "default".parse().unwrap();
            let now = Timestamp::UNIX_EPOCH;
            records.submit(request, toolchain, Submitter::root(), now)
        };
        let mut build = submit().await.unwrap();
        let digest: Digest = digest.parse().unwrap();
        assert_eq!(
            records.delete(build.id).await.unwrap(),
            Deletion::Unfinished
        );
        assert!(records.names_source(&digest, None).await.unwrap());
        build.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
        records.save(&mut build).await.unwrap();
        let summaries = records.summaries().unwrap();
        assert_eq!(summaries[0].sources, BTreeSet::from([digest.clone()]));
        assert_eq!(summaries[0].finished, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(records.delete(build.id).await.unwrap(), Deletion::Done);
        assert_eq!(records.delete(build.id).await.unwrap(), Deletion::Missing);
        let deleted = records.deleted_builds().await.unwrap();
        assert_eq!(deleted, BTreeSet::from([build.id]));
        records.forget_deleted(build.id).await.unwrap();
        assert_eq!(records.deleted_builds().await.unwrap(), BTreeSet::new());
        assert_eq!(records.get(build.id).await.unwrap(), None);
        assert!(!records.names_source(&digest, None).await.unwrap());
        let named = ListQuery {
            package: Some("x".into()),
            ..ListQuery::default()
        };
        assert_eq!(records.list(named).await.unwrap(), []);
        assert!(submit().await.unwrap().id > build.id);
    }

    #[tokio::test]
    async fn a_build_that_is_held_or_awaited_is_not_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let submit = |after: &str| {
            let text = format!(r#"{{"machine": "linux", "sources": [], "after": [{after}]}}"#);
            let request = serde_json::from_str(&text).unwrap();
            let toolchain = "default".parse().unwrap();
            records.submit(request, toolchain, Submitter::root(), Timestamp::UNIX_EPOCH)
        };
        let mut build = submit("").await.unwrap();
        build.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
        build.interactive.held = Some(Hold {
            kind: HoldKind::Snapshot,
            until: Timestamp::UNIX_EPOCH,
        });
        records.save(&mut build).await.unwrap();
        assert!(records.summaries().unwrap()[0].held);
        assert_eq!(records.delete(build.id).await.unwrap(), Deletion::Held);
        build.interactive.held = None;
        records.save(&mut build).await.unwrap();
        let mut other = submit(&build.id.to_string()).await.unwrap();
        assert!(!records.summaries().unwrap()[0].held);
        assert_eq!(records.delete(build.id).await.unwrap(), Deletion::Awaited);
        other.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
        records.save(&mut other).await.unwrap();
        assert_eq!(records.delete(build.id).await.unwrap(), Deletion::Done);
    }
}
