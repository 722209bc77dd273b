//! Builds that have ended, in the few words that a list of all of them needs.

use config::builds::{Build, Submitter, Target};
use config::task::Outcome;
use config::{BuildId, MachineName, ToolchainName};
use jiff::Timestamp;
use rusqlite::Row;

use super::rows::{maybe, parsed, read_key};
use super::{Records, RecordsError};

/// A build that has an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub id: BuildId,
    /// Who asked for it.
    pub submitter: Submitter,
    /// The machine it was built on.
    pub machine: MachineName,
    /// The toolchain it was built with.
    pub toolchain: ToolchainName,
    /// What people call what was built.
    pub target: Target,
    /// How it ended.
    pub outcome: Outcome,
    /// When it was asked for.
    pub submitted: Timestamp,
    /// When its last guest was started.
    pub started: Option<Timestamp>,
    /// When its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// Errors that it spoke of.
    pub errors: u32,
    /// Warnings that it spoke of.
    pub warnings: u32,
}

impl Ended {
    /// What a record says in few words, if the build has ended.
    pub fn of(build: &Build) -> Option<Self> {
        Some(Self {
            id: build.id,
            submitter: build.submitter.clone(),
            machine: build.machine.clone(),
            toolchain: build.toolchain.clone(),
            target: build.target.clone(),
            outcome: build.outcome?,
            submitted: build.submitted,
            started: build.started,
            finished: build.finished,
            errors: build.progress.errors,
            warnings: build.progress.warnings,
        })
    }
}

/// All that is asked is in the index `builds_ended`: no row is read for it, however
/// long its lists are.
const ALL: &str = "SELECT id, submitter, machine, toolchain, target, outcome, submitted, started,
     finished, progress ->> 'errors' AS errors, progress ->> 'warnings' AS warnings
     FROM builds INDEXED BY builds_ended WHERE outcome IS NOT NULL";

impl Records {
    /// Makes something of every build that has ended, beside whoever changes them; in
    /// no particular order.
    pub async fn of_ended<T: Send + 'static>(
        &self,
        make: impl Fn(&Ended) -> T + Send + 'static,
    ) -> Result<Vec<T>, RecordsError> {
        let all = self.database.read(move |connection| {
            let mut select = connection.prepare_cached(ALL)?;
            let all = select.query_map([], |row| read(row).map(|ended| make(&ended)))?;
            all.collect()
        });
        all.await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Ended> {
    Ok(Ended {
        id: read_key(row.get("id")?),
        submitter: parsed(row, "submitter")?,
        machine: parsed(row, "machine")?,
        toolchain: parsed(row, "toolchain")?,
        target: parsed(row, "target")?,
        outcome: parsed(row, "outcome")?,
        submitted: parsed(row, "submitted")?,
        started: maybe(row, "started")?,
        finished: maybe(row, "finished")?,
        errors: row.get::<_, Option<u32>>("errors")?.unwrap_or_default(),
        warnings: row.get::<_, Option<u32>>("warnings")?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use config::builds::{Progress, State};

    use super::*;

    #[tokio::test]
    async fn every_build_that_has_ended_is_told_from_the_index_alone() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r")).unwrap();
        let mut ended = Vec::new();
        for outcome in [Some(Outcome::Error), None, Some(Outcome::Skip)] {
            let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
            let toolchain = "default".parse().unwrap();
            let now = Timestamp::UNIX_EPOCH;
            let submit = records.submit(request, toolchain, Submitter::root(), now);
            let mut build = submit.await.unwrap();
            if outcome == Some(Outcome::Error) {
                build.enter(State::Starting, now).unwrap();
                build.progress = Progress {
                    errors: 3,
                    warnings: 4,
                    ..Progress::default()
                };
                records.note(build.id, build.progress).await.unwrap();
            }
            if outcome.is_some() {
                build.enter(State::Finished, now).unwrap();
                build.outcome = outcome;
            }
            records.save(&build).await.unwrap();
            ended.extend(Ended::of(&build));
        }
        let mut told = records.of_ended(Ended::clone).await.unwrap();
        told.sort_by_key(|it| it.id);
        assert_eq!((told.len(), &told), (2, &ended));
        let connection = records.database.reader().unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {ALL}");
        let plan: String = connection
            .query_row(&sql, [], |row| row.get("detail"))
            .unwrap();
        assert_eq!(plan, "SCAN builds USING COVERING INDEX builds_ended");
    }
}
