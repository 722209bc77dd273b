//! Idempotent submission: a build is created once per idempotency key of its submitter.

use config::ToolchainName;
use config::builds::{Build, Request, Submitter};
use config::task::Digest;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, read, time};
use super::updates::build_of;
use super::{Records, RecordsError};

/// The time for which a key is remembered.
const RETENTION: SignedDuration = SignedDuration::from_hours(24 * 7);

/// An idempotency key of a client, and the hash of the request that it was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, as the client sent it.
    pub key: String,
    /// The hash of the request.
    pub sha256: Digest,
}

/// The result of a submission with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// The build was created.
    Created(Box<Build>),
    /// The key was used before for the same request. The build is `None` if it was deleted.
    Replayed(Option<Box<Build>>),
    /// The key was used before for another request; nothing was created.
    KeyConflict,
}

impl Records {
    /// Creates a build, unless its submitter has used the key within a week.
    pub async fn submit_idempotent(
        &self,
        key: IdempotencyKey,
        request: Request,
        toolchain: ToolchainName,
        submitter: Submitter,
        now: Timestamp,
    ) -> Result<Submitted, RecordsError> {
        let mut build = build_of(request, toolchain, submitter, now);
        let submission = self.database.write(move |transaction| {
            let sql = "DELETE FROM keys WHERE at < ?1";
            transaction.prepare_cached(sql)?.execute([expiry(now)])?;
            if let Some(replay) = find_replay(transaction, &build.submitter, &key, now)? {
                return Ok(replay);
            }
            build.id = rows::insert(transaction, &build)?;
            let sql =
                "INSERT INTO keys (submitter, key, sha256, build, at) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.prepare_cached(sql)?.execute(params![
                build.submitter.as_str(),
                key.key,
                key.sha256.as_str(),
                rows::key(build.id),
                time(now),
            ])?;
            Ok(Submitted::Created(Box::new(build)))
        });
        let result = submission.await?;
        if let Submitted::Created(build) = &result {
            self.telemetry.events.build(build);
        }
        Ok(result)
    }

    /// Returns the result that a submission with this key would have, if its submitter used
    /// the key within a week.
    pub async fn find_replay(
        &self,
        key: &IdempotencyKey,
        submitter: &Submitter,
        now: Timestamp,
    ) -> Result<Option<Submitted>, RecordsError> {
        let (key, submitter) = (key.clone(), submitter.clone());
        let replay = self
            .database
            .read(move |connection| find_replay(connection, &submitter, &key, now));
        replay.await
    }
}

/// Returns the time before which keys are forgotten, as the database stores it.
fn expiry(now: Timestamp) -> String {
    time(now.saturating_sub(RETENTION).unwrap_or(Timestamp::MIN))
}

fn find_replay(
    connection: &Connection,
    submitter: &Submitter,
    key: &IdempotencyKey,
    now: Timestamp,
) -> rusqlite::Result<Option<Submitted>> {
    let sql = "SELECT sha256, build FROM keys WHERE submitter = ?1 AND key = ?2 AND at >= ?3";
    let found: Option<(String, i64)> = connection
        .prepare_cached(sql)?
        .query_row([submitter.as_str(), &key.key, &expiry(now)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((sha256, id)) = found else {
        return Ok(None);
    };
    if sha256 != key.sha256.as_str() {
        return Ok(Some(Submitted::KeyConflict));
    }
    let sql = "SELECT * FROM builds WHERE id = ?1";
    let mut select = connection.prepare_cached(sql)?;
    let build = select.query_row([id], read).optional()?;
    Ok(Some(Submitted::Replayed(build.map(Box::new))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use telemetry::Telemetry;

    #[tokio::test]
    async fn a_key_creates_one_build_per_submitter_even_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let submit = async |submitter: &str, digit: u8, day: i64| {
            // Opened again each time, as after a crash.
            let records = Records::open(&path, Telemetry::default()).unwrap();
            let key = IdempotencyKey {
                key: "k".into(),
                sha256: Digest::from([digit; 32]),
            };
            let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
            let toolchain = "default".parse().unwrap();
            let submitter = submitter.parse().unwrap();
            let now = Timestamp::from_second(day * 24 * 60 * 60).unwrap();
            let done = records.submit_idempotent(key, request, toolchain, submitter, now);
            match done.await.unwrap() {
                Submitted::Created(build) => format!("new {}", build.id),
                Submitted::Replayed(build) => format!("before {}", build.unwrap().id),
                Submitted::KeyConflict => "other".to_owned(),
            }
        };
        assert_eq!(submit("one", 1, 0).await, "new 1");
        assert_eq!(submit("one", 1, 1).await, "before 1");
        assert_eq!(submit("one", 2, 2).await, "other");
        assert_eq!(submit("two", 2, 2).await, "new 2");
        assert_eq!(submit("one", 2, 8).await, "new 3");
    }
}
