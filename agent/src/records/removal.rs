//! Deletes records, and tells what a plan for that must know of all of them.

use std::collections::BTreeSet;

use config::BuildId;
use config::task::{Digest, Source};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{key, listed, maybe, read_key};
use super::{Records, RecordsError};

/// What became of a wish to delete a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// There is none.
    Missing,
    /// Its build has no outcome yet; nothing was changed.
    Unfinished,
    /// Something of it waits for a person; nothing was changed.
    Held,
    /// A build without an outcome is to come after it; nothing was changed.
    Awaited,
}

/// What is known of a build when it is decided what goes.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its number.
    pub id: BuildId,
    /// When its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// Its sources.
    pub sources: BTreeSet<Digest>,
    /// The builds that it waits for.
    pub after: Vec<BuildId>,
    /// Whether something of it waits for a person.
    pub held: bool,
}

impl Records {
    /// Deletes the record of a build that has an outcome and that nobody needs, and
    /// remembers that its directory is to go, until [`Records::removed`].
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn delete(&self, id: BuildId) -> Result<Removal, RecordsError> {
        let delete = self
            .database
            .write(move |transaction| delete(transaction, id));
        let removal = delete.await?;
        if removal == Removal::Done {
            self.events().deleted(id);
        }
        Ok(removal)
    }

    /// The builds whose records are deleted and whose directories may still be there.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn leftovers(&self) -> Result<BTreeSet<BuildId>, RecordsError> {
        self.database
            .read(|connection| {
                connection
                    .prepare_cached("SELECT id FROM removed")?
                    .query_map([], |row| row.get(0).map(read_key))?
                    .collect()
            })
            .await
    }

    /// Forgets a build whose directory is gone, too.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn removed(&self, id: BuildId) -> Result<(), RecordsError> {
        let forget = self.database.write(move |transaction| {
            let sql = "DELETE FROM removed WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute([key(id)])
        });
        forget.await.map(drop)
    }

    /// Looks at all records, beside everybody who works with them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>, RecordsError> {
        let read = || summaries(&self.database.reader()?);
        read().map_err(|source| self.database.fault(source))
    }

    /// Whether a build that was asked for after `since`, or a schedule, names this source.
    ///
    /// # Errors
    /// When the records cannot be read.
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

fn delete(transaction: &Transaction<'_>, id: BuildId) -> rusqlite::Result<Removal> {
    let removal = may_go(transaction, id)?;
    if removal == Removal::Done {
        transaction.execute("DELETE FROM builds WHERE id = ?1", [key(id)])?;
        transaction.execute("INSERT OR IGNORE INTO removed VALUES (?1)", [key(id)])?;
    }
    Ok(removal)
}

/// What becomes of a wish to delete this record now.
fn may_go(connection: &Connection, id: BuildId) -> rusqlite::Result<Removal> {
    let sql = "SELECT state = 'finished', life ->> 'held' IS NOT NULL, EXISTS (
                   SELECT 1 FROM builds AS other, json_each(other.after)
                   WHERE other.state != 'finished' AND json_each.value = ?1)
               FROM builds WHERE id = ?1";
    let found = connection
        .prepare_cached(sql)?
        .query_row([key(id)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    Ok(match found.optional()? {
        None => Removal::Missing,
        Some((false, _, _)) => Removal::Unfinished,
        Some((true, true, _)) => Removal::Held,
        Some((true, false, true)) => Removal::Awaited,
        Some((true, false, false)) => Removal::Done,
    })
}

fn summaries(connection: &Connection) -> rusqlite::Result<Vec<Summary>> {
    let sql = "SELECT id, finished, sources, after, life ->> 'held' IS NOT NULL FROM builds";
    let summary = |row: &rusqlite::Row<'_>| {
        let sources: Vec<Source> = listed(row, "sources")?;
        Ok(Summary {
            id: read_key(row.get("id")?),
            finished: maybe(row, "finished")?,
            sources: sources.into_iter().map(|source| source.sha256).collect(),
            after: listed(row, "after")?,
            held: row.get(4)?,
        })
    };
    connection.prepare(sql)?.query_map([], summary)?.collect()
}

#[cfg(test)]
mod tests {
    use config::builds::{Hold, HoldKind, ListQuery, State, Submitter};

    use super::*;

    #[tokio::test]
    async fn a_deleted_build_is_gone_wholly_and_its_number_never_returns() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
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
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Unfinished);
        assert!(records.names_source(&digest, None).await.unwrap());
        build.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
        records.save(&build).await.unwrap();
        let summaries = records.summaries().unwrap();
        assert_eq!(summaries[0].sources, BTreeSet::from([digest.clone()]));
        assert_eq!(summaries[0].finished, Some(Timestamp::UNIX_EPOCH));
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Done);
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Missing);
        let leftovers = records.leftovers().await.unwrap();
        assert_eq!(leftovers, BTreeSet::from([build.id]));
        records.removed(build.id).await.unwrap();
        assert_eq!(records.leftovers().await.unwrap(), BTreeSet::new());
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
        let records = Records::open(&directory.path().join("r")).unwrap();
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
        records.save(&build).await.unwrap();
        assert!(records.summaries().unwrap()[0].held);
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Held);
        build.interactive.held = None;
        records.save(&build).await.unwrap();
        let mut other = submit(&build.id.to_string()).await.unwrap();
        assert!(!records.summaries().unwrap()[0].held);
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Awaited);
        other.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
        records.save(&other).await.unwrap();
        assert_eq!(records.delete(build.id).await.unwrap(), Removal::Done);
    }
}
