//! Submits a build once, however often it is asked for under one key.

use config::ToolchainName;
use config::builds::{Build, Request, Submitter};
use config::task::Digest;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, key, read, time};
use super::writing::build_of;
use super::{Records, RecordsError};

/// How long a key is known.
const KNOWN: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What a client calls its asking, and the hash of what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The client's own name for it.
    pub key: String,
    /// The hash of the request.
    pub sha256: Digest,
}

/// What became of a request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// A new build.
    New(Box<Build>),
    /// The build that it made when it came before; nothing when that was deleted.
    Before(Option<Box<Build>>),
    /// Nothing: something else was asked for under this key.
    Other,
}

impl Records {
    /// Records a new build, unless its submitter has used the key within a week.
    pub async fn submit_once(
        &self,
        once: Once,
        request: Request,
        toolchain: ToolchainName,
        submitter: Submitter,
        now: Timestamp,
    ) -> Result<Submitted, RecordsError> {
        let mut build = build_of(request, toolchain, submitter, now);
        let done = self.database.write(move |transaction| {
            let sql = "DELETE FROM keys WHERE at < ?1";
            transaction
                .prepare_cached(sql)?
                .execute([known_since(now)])?;
            if let Some(known) = known(transaction, &build.submitter, &once, now)? {
                return Ok(known);
            }
            build.id = rows::insert(transaction, &build)?;
            let sql =
                "INSERT INTO keys (submitter, key, sha256, build, at) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.prepare_cached(sql)?.execute(params![
                build.submitter.as_str(),
                once.key,
                once.sha256.as_str(),
                key(build.id),
                time(now),
            ])?;
            Ok(Submitted::New(Box::new(build)))
        });
        let done = done.await?;
        if let Submitted::New(build) = &done {
            self.events.build(build);
        }
        Ok(done)
    }

    /// What became of the key when its submitter used it before, if that was within a
    /// week.
    pub async fn submitted_before(
        &self,
        once: &Once,
        submitter: &Submitter,
        now: Timestamp,
    ) -> Result<Option<Submitted>, RecordsError> {
        let (once, submitter) = (once.clone(), submitter.clone());
        let known = self
            .database
            .read(move |connection| known(connection, &submitter, &once, now));
        known.await
    }
}

/// No key is known that was used before this.
fn known_since(now: Timestamp) -> String {
    time(now.saturating_sub(KNOWN).unwrap_or(Timestamp::MIN))
}

fn known(
    connection: &Connection,
    submitter: &Submitter,
    once: &Once,
    now: Timestamp,
) -> rusqlite::Result<Option<Submitted>> {
    let sql = "SELECT sha256, build FROM keys WHERE submitter = ?1 AND key = ?2 AND at >= ?3";
    let found: Option<(String, i64)> = connection
        .prepare_cached(sql)?
        .query_row([submitter.as_str(), &once.key, &known_since(now)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let Some((sha256, id)) = found else {
        return Ok(None);
    };
    if sha256 != once.sha256.as_str() {
        return Ok(Some(Submitted::Other));
    }
    let sql = "SELECT * FROM builds WHERE id = ?1";
    let mut select = connection.prepare_cached(sql)?;
    let build = select.query_row([id], read).optional()?;
    Ok(Some(Submitted::Before(build.map(Box::new))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_makes_one_build_of_its_submitter_also_after_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let submit = async |submitter: &str, digit: u8, day: i64| {
            // Opened anew each time, as after a crash.
            let records = Records::open(&path).unwrap();
            let once = Once {
                key: "k".into(),
                sha256: Digest::from([digit; 32]),
            };
            let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
            let toolchain = "default".parse().unwrap();
            let submitter = submitter.parse().unwrap();
            let now = Timestamp::from_second(day * 24 * 60 * 60).unwrap();
            let done = records.submit_once(once, request, toolchain, submitter, now);
            match done.await.unwrap() {
                Submitted::New(build) => format!("new {}", build.id),
                Submitted::Before(build) => format!("before {}", build.unwrap().id),
                Submitted::Other => "other".to_owned(),
            }
        };
        assert_eq!(submit("one", 1, 0).await, "new 1");
        assert_eq!(submit("one", 1, 1).await, "before 1");
        assert_eq!(submit("one", 2, 2).await, "other");
        assert_eq!(submit("two", 2, 2).await, "new 2");
        assert_eq!(submit("one", 2, 8).await, "new 3");
    }
}
