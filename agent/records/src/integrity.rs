//! The integrity check of the database, and the facts that the doctor compares.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::State;
use config::task::Digest;
use rusqlite::{Connection, Row};
use sys::error_report::chain;

use super::rows::{all, is_of_row, parse, read, read_key};
use super::schedules;
use super::{Records, RecordsError};

/// The result of an integrity check.
#[derive(Debug, Clone, Default)]
pub struct Integrity {
    /// The faults that SQLite found; empty if the file is intact.
    pub faults: Vec<String>,
    /// The state and the number of attempts of each build whose record can be read.
    pub builds: BTreeMap<BuildId, (State, u32)>,
    /// The other builds, each with the fault of its record. Lists leave them out.
    pub unreadable: BTreeMap<BuildId, String>,
    /// The schedules whose rows cannot be read, by their names, each with the fault.
    pub unreadable_schedules: BTreeMap<String, String>,
    /// The sources of the readable builds, and of the schedules.
    pub sources: BTreeSet<Digest>,
}

impl Records {
    /// Checks the whole file. Does not block other readers or the writer.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn check_integrity(&self) -> Result<Integrity, RecordsError> {
        let read = || examine(&self.database.reader()?);
        read().map_err(|source| self.database.fault(source))
    }
}

fn examine(connection: &Connection) -> rusqlite::Result<Integrity> {
    let mut faults: Vec<String> = all(connection, "PRAGMA quick_check(5)", |row| row.get(0))?;
    faults.retain(|fault| fault != "ok");
    if !faults.is_empty() {
        return Ok(Integrity {
            faults,
            ..Integrity::default()
        });
    }
    let mut found = Integrity {
        sources: sources_of_schedules(connection)?,
        unreadable_schedules: unreadable_schedules(connection)?,
        ..Integrity::default()
    };
    let mut select = connection.prepare("SELECT * FROM builds")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        add(&mut found, row)?;
    }
    Ok(found)
}

/// Adds the record of a build.
fn add(found: &mut Integrity, row: &Row<'_>) -> rusqlite::Result<()> {
    match read(row) {
        Ok(build) => {
            found.builds.insert(build.id, (build.state, build.attempts));
            let sources = build.sources.into_iter().map(|source| source.sha256);
            found.sources.extend(sources);
        }
        Err(error) if is_of_row(&error) => {
            let id = read_key(row.get("id")?);
            found.unreadable.insert(id, chain(&error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

fn unreadable_schedules(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut select = connection.prepare("SELECT * FROM schedules")?;
    let mut rows = select.query([])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        match schedules::read(row) {
            Ok(_) => {}
            Err(error) if is_of_row(&error) => {
                found.insert(row.get("name")?, chain(&error));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn sources_of_schedules(connection: &Connection) -> rusqlite::Result<BTreeSet<Digest>> {
    let sql = "SELECT DISTINCT source.value ->> 'sha256' AS sha256
               FROM (SELECT build FROM schedules WHERE json_valid(build)) AS valid,
                    json_each(valid.build, '$.sources') AS source";
    all(connection, sql, |row| parse(row, "sha256"))
}

#[cfg(test)]
mod tests {
    use config::builds::{Build, ListQuery, Submitter};
    use config::task::Outcome;

    use super::super::database::Database;
    use super::*;
    use telemetry::Telemetry;

    #[tokio::test]
    async fn an_intact_database_returns_its_builds_and_sources() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let digest = "a".repeat(64);
        let request = format!(
            r#"{{"machine": "linux", "sources": [{{"name": "x", "sha256": "{digest}"}}, {{"name": "y", "sha256": "{digest}"}}]}}"#
        );
        let request = serde_json::from_str(&request).unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let build = records
            .submit(request, "default".parse().unwrap(), Submitter::root(), now)
            .await
            .unwrap();
        let health = records.check_integrity().unwrap();
        assert_eq!(health.faults, Vec::<String>::new());
        assert_eq!(
            health.builds,
            BTreeMap::from([(build.id, (State::Queued, 0))])
        );
        assert_eq!(health.sources, BTreeSet::from([digest.parse().unwrap()]));
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_hides_no_other_one() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let now = jiff::Timestamp::UNIX_EPOCH;
        for _ in 0..6 {
            let request = serde_json::from_str(r#"{"machine": "m", "sources": []}"#).unwrap();
            let toolchain = "default".parse().unwrap();
            let submit = records.submit(request, toolchain, Submitter::root(), now);
            let mut build = submit.await.unwrap();
            if build.id.0 > 3 {
                build.enter(State::Finished, now).unwrap();
                build.outcome = Some(Outcome::Success);
                records.save(&mut build).await.unwrap();
            }
        }
        let damage = "UPDATE builds SET task = '' WHERE id = 2;
                      UPDATE builds SET target = 'a  b', outcome = 'splendid' WHERE id = 5;
                      UPDATE builds SET state = 'dreaming' WHERE id = 3;";
        let connection = Connection::open(records.path()).unwrap();
        connection.execute_batch(damage).unwrap();

        let ids = |builds: Vec<Build>| builds.iter().map(|it| it.id.0).collect::<Vec<_>>();
        assert_eq!(ids(records.unfinished().await.unwrap()), [1]);
        assert_eq!(ids(records.last_finished(2).await.unwrap()), [6, 4]);
        assert_eq!(ids(records.newest(None, 2).await.unwrap()), [6, 4]);
        let page = ListQuery {
            count: Some(2),
            ..ListQuery::default()
        };
        let first = records.list(page.clone()).await.unwrap();
        let second = records.list(page.next(&first).unwrap()).await.unwrap();
        assert_eq!((ids(first), ids(second)), (vec![6, 4], vec![1]));
        let ended = records.finished_builds(|it| it.id.0).await.unwrap();
        assert_eq!(BTreeSet::from_iter(ended), BTreeSet::from([4, 6]));
        let summaries = records.summaries().unwrap();
        assert!(summaries.iter().any(|it| it.id == BuildId(6)));

        let found = records.check_integrity().unwrap();
        let known: Vec<_> = found.builds.keys().map(|id| id.0).collect();
        assert_eq!(known, [1, 4, 6]);
        let columns = [
            (2, "column task"),
            (3, "column state"),
            (5, "column target"),
        ];
        assert_eq!(found.unreadable.len(), columns.len());
        for (id, column) in columns {
            let fault = &found.unreadable[&BuildId(id)];
            assert!(fault.contains(column), "{fault}");
        }
        assert!(records.get(BuildId(2)).await.is_err());
    }

    #[test]
    fn a_damaged_database_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let records = Records::open(&path, Telemetry::default()).unwrap();
        drop(records);
        let mut content = std::fs::read(&path).unwrap();
        // The second page is the root of a table.
        content[4096..4200].fill(0xff);
        sys::file::replace(&path, &content).unwrap();
        let database = Database::new(&path, Connection::open(&path).unwrap());
        let health = Records {
            database,
            end_rules: std::sync::Arc::default(),
            telemetry: Telemetry::default(),
        }
        .check_integrity();
        assert!(health.is_err() || !health.unwrap().faults.is_empty());
    }
}
