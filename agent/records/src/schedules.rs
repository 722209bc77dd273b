//! The records of schedules. A run and its build are recorded in one transaction, so that a
//! schedule never runs twice for the same time, even after a crash.

use config::builds::{Build, Request};
use config::schedule::{Page, Run, SCHEDULES_MAX, Schedule};
use config::{ScheduleName, ToolchainName};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::rows::{self, from_json, json, parse, readable, time};
use super::updates::build_of;
use super::{Records, RecordsError};

/// The result of adding a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The schedule was added.
    New,
    /// The schedule replaced another one of its name.
    Replaced,
    /// Refused: a schedule of its name exists.
    Exists,
    /// Refused: there are [`SCHEDULES_MAX`] schedules.
    Full,
}

impl Records {
    /// Returns schedules, sorted by name, without those whose rows cannot be read.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn schedules(&self, page: Page) -> Result<Vec<Schedule>, RecordsError> {
        self.database
            .read(move |connection| {
                let from = page.from.as_ref().map_or("", ScheduleName::as_str);
                let count = page.count.map_or(-1, i64::from);
                let sql = "SELECT * FROM schedules WHERE name > ?1 ORDER BY name LIMIT ?2";
                let mut select = connection.prepare_cached(sql)?;
                readable(select.query_map(params![from, count], read)?).collect()
            })
            .await
    }

    /// Returns a schedule.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn schedule(&self, name: &ScheduleName) -> Result<Option<Schedule>, RecordsError> {
        let name = name.clone();
        self.database
            .read(move |connection| find(connection, &name))
            .await
    }

    /// Adds a schedule. With `replace`, it may replace another one of its name.
    ///
    /// # Errors
    /// The records cannot be written.
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

    /// Deletes a schedule. Returns false if there was no such schedule.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn remove_schedule(&self, name: &ScheduleName) -> Result<bool, RecordsError> {
        let name = name.clone();
        self.database
            .write(move |transaction| {
                let sql = "DELETE FROM schedules WHERE name = ?1";
                Ok(transaction.execute(sql, [name.as_str()])? > 0)
            })
            .await
    }

    /// Records a run of a schedule, and with `new` creates its build from a request, with a toolchain.
    /// Returns both as recorded. Returns `None` and changes nothing if the schedule is no longer
    /// as it was `before`.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn record_run(
        &self,
        before: &Schedule,
        mut run: Run,
        new: Option<(Request, ToolchainName)>,
    ) -> Result<Option<(Schedule, Option<Build>)>, RecordsError> {
        let before = before.clone();
        let done = self.database.write(move |transaction| {
            let found = find(transaction, &before.name)?;
            let is_same = |it: &Schedule| it.added == before.added && it.since == before.since;
            let Some(mut schedule) = found.filter(is_same) else {
                return Ok(None);
            };
            let create = |(request, toolchain)| {
                build_of(request, toolchain, schedule.submitter.clone(), run.at)
            };
            let mut build = new.map(create);
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
            self.telemetry.events.build(build);
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
               (name, timing, build, submitter, added, since, last, project)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    transaction.prepare_cached(sql)?.execute(params![
        schedule.name.as_str(),
        json(&schedule.timing)?,
        json(&schedule.build)?,
        schedule.submitter.as_str(),
        time(schedule.added),
        time(schedule.since),
        json(&schedule.last)?,
        json(&schedule.project)?,
    ])?;
    Ok(())
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Schedule> {
    Ok(Schedule {
        name: parse(row, "name")?,
        timing: from_json(row, "timing")?,
        build: from_json(row, "build")?,
        project: from_json(row, "project")?,
        submitter: parse(row, "submitter")?,
        added: parse(row, "added")?,
        since: parse(row, "since")?,
        last: from_json(row, "last")?,
        next: None,
    })
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::builds::{ListQuery, Submitter};
    use config::schedule::{RunResult, Timing};
    use jiff::Timestamp;

    use super::*;
    use telemetry::Telemetry;

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
            project: None,
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

    fn new() -> (Request, ToolchainName) {
        (request(), "default".parse().unwrap())
    }

    #[tokio::test]
    async fn a_run_that_is_recorded_twice_creates_one_build() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let before = schedule("nightly");
        let added = records.add_schedule(before.clone(), false).await.unwrap();
        assert_eq!(added, Added::New);
        let ran = records.record_run(&before, run(Some(10), 11), Some(new()));
        let (after, made) = ran.await.unwrap().unwrap();
        assert_eq!((after.since, made.unwrap().id), (at(11), BuildId(1)));
        // What was decided before knows nothing of that.
        let again = records
            .record_run(&before, run(Some(10), 12), Some(new()))
            .await;
        assert_eq!(again.unwrap(), None);
        let by_hand = records.record_run(&after, run(None, 13), Some(new())).await;
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
    async fn schedules_are_sorted_and_keep_their_sources() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
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
        let health = records.check_integrity().unwrap();
        assert!(health.sources.contains(&digest));
        for schedule in records.schedules(Page::default()).await.unwrap() {
            assert!(records.remove_schedule(&schedule.name).await.unwrap());
            assert!(!records.remove_schedule(&schedule.name).await.unwrap());
        }
        assert!(!records.names_source(&digest, None).await.unwrap());
    }

    #[tokio::test]
    async fn a_schedule_that_cannot_be_read_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let records = Records::open(&path, Telemetry::default()).unwrap();
        for name in ["a", "b", "c", "d"] {
            records.add_schedule(schedule(name), false).await.unwrap();
        }
        let other = Connection::open(&path).unwrap();
        for (name, column, value) in [
            ("b", "timing", r#"{"never": 1}"#),
            ("c", "build", "no JSON"),
        ] {
            let sql = format!("UPDATE schedules SET {column} = ?2 WHERE name = ?1");
            other.execute(&sql, [name, value]).unwrap();
        }
        let told = records.schedules(Page::default()).await.unwrap();
        assert_eq!(told, [schedule("a"), schedule("d")]);
        let error = records.schedule(&"b".parse().unwrap()).await.unwrap_err();
        assert!(sys::error_report::chain(&error).contains("column timing"));
        let found = records.check_integrity().unwrap();
        assert_eq!(found.faults, Vec::<String>::new());
        assert!(!found.sources.is_empty());
        let names: Vec<_> = found.unreadable_schedules.keys().collect();
        assert_eq!(names, ["b", "c"]);
        assert!(found.unreadable_schedules["b"].contains("column timing"));
        assert!(
            records
                .remove_schedule(&"b".parse().unwrap())
                .await
                .unwrap()
        );
    }
}
