//! The records of schedules. A run and what it makes are recorded as one: whoever is
//! killed has run or has not, and never twice for the same time.

use config::builds::Build;
use config::schedule::{Page, Run, SCHEDULES_MAX, Schedule};
use config::{ScheduleName, ToolchainName};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::{self, json, listed, parsed, time};
use super::writing::build_of;
use super::{Records, RecordsError};

/// What became of a schedule that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    New,
    /// It is there instead of the one of its name.
    Replaced,
    /// Nothing: there is one of its name.
    Exists,
    /// Nothing: there are [`SCHEDULES_MAX`].
    Full,
}

impl Records {
    /// Schedules in the order of their names.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn schedules(&self, page: Page) -> Result<Vec<Schedule>, RecordsError> {
        self.database
            .read(move |connection| {
                let from = page.from.as_ref().map_or("", ScheduleName::as_str);
                let count = page.count.map_or(-1, i64::from);
                let sql = "SELECT * FROM schedules WHERE name > ?1 ORDER BY name LIMIT ?2";
                connection
                    .prepare_cached(sql)?
                    .query_map(params![from, count], read)?
                    .collect()
            })
            .await
    }

    /// A schedule.
    ///
    /// # Errors
    /// When the records cannot be read.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, RecordsError> {
        let name = name.clone();
        self.database
            .read(move |connection| find(connection, &name))
            .await
    }

    /// Adds a schedule, also in place of the one of its name if `replace` says so.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn add_schedule(
        &self,
        schedule: Schedule,
        replace: bool,
    ) -> Result<Added, RecordsError> {
        self.database
            .write(move |transaction| {
                let added = match find(transaction, &schedule.name)? {
                    Some(_) if !replace => return Ok(Added::Exists),
                    Some(_) => Added::Replaced,
                    None if count(transaction)? >= SCHEDULES_MAX => return Ok(Added::Full),
                    None => Added::New,
                };
                write(transaction, &schedule)?;
                Ok(added)
            })
            .await
    }

    /// Removes a schedule; whether there was one.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, RecordsError> {
        let name = name.clone();
        self.database
            .write(move |transaction| {
                let sql = "DELETE FROM schedules WHERE name = ?1";
                Ok(transaction.execute(sql, [name.as_str()])? > 0)
            })
            .await
    }

    /// Records that a schedule has run, and makes its build if `new` says so: with this
    /// toolchain. Returns both as they are now; nothing when the schedule is not any
    /// more what it was `before`: nothing was changed then.
    ///
    /// # Errors
    /// When the records cannot be written.
    pub async fn ran(
        &self,
        before: &Schedule,
        mut run: Run,
        new: Option<ToolchainName>,
    ) -> Result<Option<(Schedule, Option<Build>)>, RecordsError> {
        let before = before.clone();
        let done = self.database.write(move |transaction| {
            let there = find(transaction, &before.name)?;
            let is_it = |it: &Schedule| it.added == before.added && it.since == before.since;
            let Some(mut schedule) = there.filter(is_it) else {
                return Ok(None);
            };
            let make = |toolchain| {
                let (request, submitter) = (schedule.build.clone(), schedule.submitter.clone());
                build_of(request, toolchain, submitter, run.at)
            };
            let mut build = new.map(make);
            if let Some(build) = &mut build {
                build.schedule = Some(schedule.name.clone());
                build.id = rows::insert(transaction, build)?;
                run.build = Some(build.id);
            }
            if run.due.is_some() {
                schedule.since = run.at;
            }
            schedule.last = Some(run);
            write(transaction, &schedule)?;
            Ok(Some((schedule, build)))
        });
        let done = done.await?;
        if let Some((_, Some(build))) = &done {
            self.events.build(build);
        }
        Ok(done)
    }
}

fn find(connection: &Connection, name: &ScheduleName) -> rusqlite::Result<Option<Schedule>> {
    let sql = "SELECT * FROM schedules WHERE name = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([name.as_str()], read)
        .optional()
}

fn count(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("SELECT count(*) FROM schedules", [], |row| row.get(0))
}

fn write(transaction: &Transaction<'_>, schedule: &Schedule) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO schedules
               (name, timing, build, submitter, added, since, last)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.prepare_cached(sql)?.execute(params![
        schedule.name.as_str(),
        json(&schedule.timing)?,
        json(&schedule.build)?,
        schedule.submitter.as_str(),
        time(schedule.added),
        time(schedule.since),
        json(&schedule.last)?,
    ])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    Ok(Schedule {
        name: parsed(row, "name")?,
        timing: listed(row, "timing")?,
        build: listed(row, "build")?,
        submitter: parsed(row, "submitter")?,
        added: parsed(row, "added")?,
        since: parsed(row, "since")?,
        last: listed(row, "last")?,
        next: None,
    })
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::builds::{ListQuery, Request, Submitter};
    use config::schedule::{RunResult, Timing};
    use jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn request() -> Request {
        let source = format!(r#"{{"name": "x", "sha256": "{}"}}"#, "a".repeat(64));
        let text = format!(r#"{{"machine": "linux", "sources": [{source}]}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn schedule(name: &str) -> Schedule {
        Schedule {
            name: name.parse().unwrap(),
            timing: Timing::At(at(10)),
            build: request(),
            submitter: Submitter::root(),
            added: at(0),
            since: at(0),
            last: None,
            next: None,
        }
    }

    fn run(due: Option<i64>, second: i64) -> Run {
        Run {
            due: due.map(at),
            at: at(second),
            result: RunResult::Submitted,
            build: None,
            message: String::new(),
        }
    }

    fn toolchain() -> ToolchainName {
        "default".parse().unwrap()
    }

    #[tokio::test]
    async fn a_time_makes_one_build_also_when_it_is_recorded_twice() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
        let before = schedule("nightly");
        let added = records.add_schedule(before.clone(), false).await.unwrap();
        assert_eq!(added, Added::New);
        let ran = records.ran(&before, run(Some(10), 11), Some(toolchain()));
        let (after, made) = ran.await.unwrap().unwrap();
        assert_eq!((after.since, made.unwrap().id), (at(11), BuildId(1)));
        // What was decided before knows nothing of that.
        let again = records
            .ran(&before, run(Some(10), 12), Some(toolchain()))
            .await;
        assert_eq!(again.unwrap(), None);
        let by_hand = records.ran(&after, run(None, 13), Some(toolchain())).await;
        let (after, _) = by_hand.unwrap().unwrap();
        assert_eq!(after.since, at(11), "no time of its own has passed");
        assert_eq!(
            after.last,
            Some(Run {
                build: Some(BuildId(2)),
                ..run(None, 13)
            })
        );
        let known = records.schedule(&after.name).await.unwrap();
        assert_eq!(known, Some(after.clone()));
        let listing = ListQuery {
            schedule: Some(after.name.clone()),
            ..ListQuery::default()
        };
        assert_eq!(records.list(listing).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn schedules_are_told_in_order_and_hold_their_sources() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
        let digest = "a".repeat(64).parse().unwrap();
        for name in ["c", "a", "b"] {
            records.add_schedule(schedule(name), false).await.unwrap();
        }
        let again = records.add_schedule(schedule("a"), false).await.unwrap();
        assert_eq!(again, Added::Exists);
        let again = records.add_schedule(schedule("a"), true).await.unwrap();
        assert_eq!(again, Added::Replaced);
        let page = Page {
            from: Some("a".parse().unwrap()),
            count: Some(1),
        };
        let told = records.schedules(page).await.unwrap();
        assert_eq!(told, [schedule("b")]);
        assert!(records.names_source(&digest, None).await.unwrap());
        let health = records.health().unwrap();
        assert!(health.sources.contains(&digest));
        for schedule in records.schedules(Page::default()).await.unwrap() {
            assert!(records.remove_schedule(&schedule.name).await.unwrap());
            assert!(!records.remove_schedule(&schedule.name).await.unwrap());
        }
        assert!(!records.names_source(&digest, None).await.unwrap());
    }
}
