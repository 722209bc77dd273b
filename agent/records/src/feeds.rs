//! The builds whose packages wait for their publication in a feed. The end of a build records them in its
//! own transaction, so that none is forgotten, however often the agent is killed.

use config::builds::Build;
use config::settings::FeedRules;
use config::{BuildId, FeedName};
use rusqlite::{Row, Transaction, params};

use super::rows::{key, read_key};
use super::{Records, RecordsError};

/// A build whose packages wait for their publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingPublication {
    /// The build.
    pub build: BuildId,
    /// The number of failed attempts.
    pub failures: u32,
}

/// The waiting publications of a feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedCounts {
    /// The feed.
    pub feed: String,
    /// The number of builds.
    pub waiting: u32,
    /// The failure of the last attempt at the oldest one; may be empty.
    pub failure: String,
}

impl Records {
    /// Returns the oldest builds that wait for their publication in a feed, up to `count`.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn waiting_publications(
        &self,
        feed: FeedName,
        count: u32,
    ) -> Result<Vec<WaitingPublication>, RecordsError> {
        let waiting = self.database.read(move |connection| {
            let sql = "SELECT build, failures FROM feed_builds WHERE feed = ?1
                       ORDER BY build LIMIT ?2";
            let mut select = connection.prepare_cached(sql)?;
            let waiting = |row: &Row<'_>| {
                Ok(WaitingPublication {
                    build: read_key(row.get("build")?),
                    failures: row.get("failures")?,
                })
            };
            select
                .query_map(params![feed.as_str(), count], waiting)?
                .collect()
        });
        waiting.await
    }

    /// Records that the packages of builds are published, or that there is nothing to publish.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn published(
        &self,
        feed: FeedName,
        builds: Vec<BuildId>,
    ) -> Result<(), RecordsError> {
        let published = self.database.write(move |transaction| {
            let sql = "DELETE FROM feed_builds WHERE feed = ?1 AND build = ?2";
            let mut delete = transaction.prepare_cached(sql)?;
            for build in builds {
                delete.execute(params![feed.as_str(), key(build)])?;
            }
            Ok(())
        });
        published.await
    }

    /// Records that an attempt to publish the packages of builds has failed.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn publication_failed(
        &self,
        feed: FeedName,
        builds: Vec<BuildId>,
        failure: String,
    ) -> Result<(), RecordsError> {
        let failed = self.database.write(move |transaction| {
            let sql = "UPDATE feed_builds SET failures = failures + 1, failure = ?3
                       WHERE feed = ?1 AND build = ?2";
            let mut update = transaction.prepare_cached(sql)?;
            for build in builds {
                update.execute(params![feed.as_str(), key(build), failure])?;
            }
            Ok(())
        });
        failed.await
    }

    /// Returns the waiting publications of each feed that has some.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn publication_counts(&self) -> Result<Vec<FeedCounts>, RecordsError> {
        let counts = self.database.read(|connection| {
            let sql = "SELECT feed, count(*) AS waiting,
                         (SELECT failure FROM feed_builds AS oldest WHERE oldest.feed = all_of.feed
                          ORDER BY build LIMIT 1) AS failure
                       FROM feed_builds AS all_of GROUP BY feed ORDER BY feed";
            let mut select = connection.prepare_cached(sql)?;
            let count = |row: &Row<'_>| {
                Ok(FeedCounts {
                    feed: row.get("feed")?,
                    waiting: row.get("waiting")?,
                    failure: row.get("failure")?,
                })
            };
            select.query_map([], count)?.collect()
        });
        counts.await
    }
}

/// Records the feeds that take a build that ends. Its typists may be others in the records, so the
/// publication decides again.
pub(super) fn record_end(
    transaction: &Transaction<'_>,
    feeds: &[FeedRules],
    build: &Build,
) -> rusqlite::Result<()> {
    for feed in feeds.iter().filter(|feed| feed.takes(build)) {
        let sql = "INSERT OR IGNORE INTO feed_builds (feed, build) VALUES (?1, ?2)";
        let mut insert = transaction.prepare_cached(sql)?;
        insert.execute(params![feed.name.as_str(), key(build.id)])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use config::builds::{State, Submitter};
    use config::settings::Settings;
    use config::task::Outcome;
    use jiff::Timestamp;
    use telemetry::Telemetry;

    use super::*;
    use crate::EndRules;

    async fn end(records: &Records, outcome: Outcome) -> BuildId {
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let toolchain = "default".parse().unwrap();
        let submitted = records.submit(request, toolchain, Submitter::root(), now);
        let mut build = submitted.await.unwrap();
        build.enter(State::Starting, now).unwrap();
        build.enter(State::Finished, now).unwrap();
        build.outcome = Some(outcome);
        records.save(&mut build).await.unwrap();
        // A later change of the record publishes nothing again.
        records.save(&mut build).await.unwrap();
        build.id
    }

    #[tokio::test]
    async fn a_success_waits_until_it_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite3");
        let text = "[[feeds]]\nname = \"main\"\nkeys = [\"/key\"]\npublishers = [\"root\"]\n";
        let feeds = Settings::parse(text).unwrap().feeds;
        let main = feeds[0].name.clone();
        let rules = EndRules {
            feeds,
            ..EndRules::default()
        };
        let records = Records::open(&path, Telemetry::default())
            .unwrap()
            .with_end_rules(rules);
        let good = end(&records, Outcome::Success).await;
        end(&records, Outcome::Error).await;
        let warned = end(&records, Outcome::Warning).await;
        let waiting = || records.waiting_publications(main.clone(), 10);
        let builds: Vec<_> = waiting().await.unwrap().iter().map(|it| it.build).collect();
        assert_eq!(builds, [good, warned]);
        let failed = records.publication_failed(main.clone(), vec![good], "no key".to_owned());
        failed.await.unwrap();
        let counts = records.publication_counts().await.unwrap();
        assert_eq!(
            (counts[0].waiting, counts[0].failure.as_str()),
            (2, "no key")
        );
        records.published(main.clone(), vec![good]).await.unwrap();
        assert_eq!(waiting().await.unwrap().len(), 1);
        records.delete(warned).await.unwrap();
        assert_eq!(waiting().await.unwrap(), []);
        assert_eq!(records.publication_counts().await.unwrap(), []);
    }
}
