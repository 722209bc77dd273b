//! The integrity check of the database, and the facts that the doctor compares.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::State;
use config::task::Digest;
use rusqlite::{Connection, Row};

use super::rows::{all, parse, unreadable};
use super::{Records, RecordsError};

/// The result of an integrity check.
#[derive(Debug, Clone, Default)]
pub struct Integrity {
    /// The faults that SQLite found; empty if the file is intact.
    pub faults: Vec<String>,
    /// The state and the number of attempts of each build.
    pub builds: BTreeMap<BuildId, (State, u32)>,
    /// The sources of all builds and schedules.
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
    let builds = "SELECT id, state, attempts FROM builds";
    let sources = "SELECT DISTINCT source.value ->> 'sha256' AS sha256
                   FROM builds, json_each(builds.sources) AS source
                   UNION SELECT source.value ->> 'sha256'
                   FROM schedules, json_each(schedules.build, '$.sources') AS source";
    Ok(Integrity {
        faults,
        builds: all(connection, builds, build)?,
        sources: all(connection, sources, |row| parse(row, "sha256"))?,
    })
}

fn build(row: &Row<'_>) -> rusqlite::Result<(BuildId, (State, u32))> {
    let id = u64::try_from(row.get::<_, i64>("id")?).unwrap_or_default();
    let state = State::from_name(&row.get::<_, String>("state")?);
    let state = state.ok_or_else(|| unreadable("state", &"not the state of a build"))?;
    Ok((BuildId(id), (state, row.get("attempts")?)))
}

#[cfg(test)]
mod tests {
    use config::builds::Submitter;

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
            telemetry: Telemetry::default(),
        }
        .check_integrity();
        assert!(health.is_err() || !health.unwrap().faults.is_empty());
    }
}
