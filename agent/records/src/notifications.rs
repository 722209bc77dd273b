//! The outbox of notifications. They are in the database of the records: the end of a build and what
//! is to be told about it are recorded in one transaction, so that each end is told of exactly as the
//! rules say, however often the agent is killed.

use config::builds::Build;
use config::notify::{Notice, NotifyCounts, PackageState, Settlement, weigh};
use config::settings::NotifyRules;
use config::{BuildId, NotifyName};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::rows::{from_json, json, key, optional, parse, readable, time};
use super::{Records, RecordsError};

/// The largest number of notifications of a rule that wait. Beyond it, the oldest is given up.
const WAITING_MAX: u32 = 1000;
/// The number of settled notifications of a rule that are kept.
const SETTLED_KEPT: u32 = 100;

/// A notification that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its ID, which is the same at each attempt.
    pub id: String,
    /// The content.
    pub content: Notice,
    /// The time at which it was recorded.
    pub created: Timestamp,
    /// The number of failed attempts.
    pub failures: u32,
    /// The failure of the last attempt; may be empty.
    pub failure: String,
}

impl Records {
    /// Returns the oldest notification of a rule that waits.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn next_notification(
        &self,
        rule: NotifyName,
    ) -> Result<Option<Notification>, RecordsError> {
        let next = self.database.read(move |connection| {
            let sql = "SELECT * FROM notifications WHERE rule = ?1 AND settled IS NULL
                       ORDER BY number LIMIT 1";
            let mut select = connection.prepare_cached(sql)?;
            select
                .query_row([rule.as_str()], read_notification)
                .optional()
        });
        next.await
    }

    /// Records that an attempt to deliver a notification has failed.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn notification_failed(
        &self,
        id: String,
        failure: String,
    ) -> Result<(), RecordsError> {
        let failed = self.database.write(move |transaction| {
            let sql = "UPDATE notifications SET failures = failures + 1, failure = ?2
                       WHERE id = ?1 AND settled IS NULL";
            transaction
                .prepare_cached(sql)?
                .execute(params![id, failure])
        });
        failed.await.map(drop)
    }

    /// Ends the attempts to deliver a notification, and forgets old ones of its rule.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn settle_notification(
        &self,
        id: String,
        settlement: Settlement,
        now: Timestamp,
    ) -> Result<(), RecordsError> {
        let settle = self.database.write(move |transaction| {
            let (given_up, failure) = match settlement {
                Settlement::Delivered => (false, String::new()),
                Settlement::GivenUp(reason) => (true, reason),
            };
            let sql = "UPDATE notifications SET settled = ?2, given_up = ?3, failure = ?4
                       WHERE id = ?1 AND settled IS NULL";
            transaction
                .prepare_cached(sql)?
                .execute(params![id, time(now), given_up, failure])?;
            let sql = "DELETE FROM notifications WHERE number IN (
                         SELECT number FROM notifications WHERE settled IS NOT NULL AND rule =
                           (SELECT rule FROM notifications WHERE id = ?1)
                         ORDER BY number DESC LIMIT -1 OFFSET ?2)";
            transaction
                .prepare_cached(sql)?
                .execute(params![id, SETTLED_KEPT])
        });
        settle.await.map(drop)
    }

    /// Returns the number of notifications of each rule that has some.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn notification_counts(&self) -> Result<Vec<NotifyCounts>, RecordsError> {
        let counts = self.database.read(|connection| {
            let sql = "SELECT rule, max(settled) FILTER (WHERE given_up = 0) AS delivered,
                         sum(settled IS NULL) AS waiting, sum(given_up) AS given_up,
                         coalesce(
                           (SELECT failure FROM notifications AS open
                            WHERE open.rule = all_of.rule AND settled IS NULL ORDER BY number LIMIT 1),
                           (SELECT failure FROM notifications AS last
                            WHERE last.rule = all_of.rule ORDER BY number DESC LIMIT 1), '') AS failure
                       FROM notifications AS all_of GROUP BY rule ORDER BY rule";
            let count = |row: &Row<'_>| {
                Ok(NotifyCounts {
                    rule: row.get("rule")?,
                    delivered: optional(row, "delivered")?,
                    waiting: row.get("waiting")?,
                    given_up: row.get("given_up")?,
                    failure: row.get("failure")?,
                })
            };
            let mut select = connection.prepare_cached(sql)?;
            readable(select.query_map([], count)?).collect()
        });
        counts.await
    }
}

/// Returns true if a cancellation of the build was accepted; `None` unless the recorded build is
/// unfinished.
pub(super) fn unfinished(
    transaction: &Transaction<'_>,
    build: &Build,
) -> rusqlite::Result<Option<bool>> {
    let sql = "SELECT cancel_requested FROM builds WHERE id = ?1 AND outcome IS NULL";
    let mut select = transaction.prepare_cached(sql)?;
    select
        .query_row([key(build.id)], |row| row.get(0))
        .optional()
}

/// Records what the rules say about the end of a build.
pub(super) fn record_end(
    transaction: &Transaction<'_>,
    rules: &[NotifyRules],
    build: &Build,
    is_canceled: bool,
) -> rusqlite::Result<()> {
    for rule in rules.iter().filter(|rule| rule.concerns(build)) {
        let before = package_state(transaction, rule, build)?;
        let weighed = weigh(rule, before, build, is_canceled);
        if let Some(state) = weighed.state {
            let sql = "INSERT OR REPLACE INTO package_states (rule, machine, package, state)
                       VALUES (?1, ?2, ?3, ?4)";
            let (machine, package) = (build.machine.as_str(), build.target.to_string());
            transaction.prepare_cached(sql)?.execute(params![
                rule.name.as_str(),
                machine,
                package,
                json(&state)?
            ])?;
        }
        if let Some(notice) = weighed.notice {
            insert(transaction, Some(build.id), &notice)?;
        }
    }
    Ok(())
}

fn package_state(
    transaction: &Transaction<'_>,
    rule: &NotifyRules,
    build: &Build,
) -> rusqlite::Result<Option<PackageState>> {
    let sql = "SELECT state FROM package_states WHERE rule = ?1 AND machine = ?2 AND package = ?3";
    let mut select = transaction.prepare_cached(sql)?;
    let (machine, package) = (build.machine.as_str(), build.target.to_string());
    select
        .query_row(params![rule.name.as_str(), machine, package], |row| {
            from_json(row, "state")
        })
        .optional()
}

/// Adds a notification, about a build if one is given.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    build: Option<BuildId>,
    notice: &Notice,
) -> rusqlite::Result<()> {
    let rule = notice.data.rule.as_str();
    let sql = "INSERT OR IGNORE INTO notifications (id, rule, build, content, created)
               VALUES ('msg_' || lower(hex(randomblob(16))), ?1, ?2, ?3, ?4)";
    let created = time(notice.timestamp);
    transaction.prepare_cached(sql)?.execute(params![
        rule,
        build.map(key),
        json(notice)?,
        created
    ])?;
    let sql = "UPDATE notifications SET settled = ?3, given_up = 1,
                 failure = 'too many notifications of this rule wait'
               WHERE number IN (SELECT number FROM notifications WHERE rule = ?1 AND settled IS NULL
                                ORDER BY number DESC LIMIT -1 OFFSET ?2)";
    transaction
        .prepare_cached(sql)?
        .execute(params![rule, WAITING_MAX, created])?;
    Ok(())
}

fn read_notification(row: &Row<'_>) -> rusqlite::Result<Notification> {
    Ok(Notification {
        id: row.get("id")?,
        content: from_json(row, "content")?,
        created: parse(row, "created")?,
        failures: row.get("failures")?,
        failure: row.get("failure")?,
    })
}

#[cfg(test)]
mod tests;
