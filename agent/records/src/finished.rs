//! Summaries of finished builds, for lists of all of them.

use config::builds::{Build, Submitter, Target};
use config::task::Outcome;
use config::{BuildId, MachineName, ProjectName, ToolchainName};
use jiff::Timestamp;
use rusqlite::Row;

use super::rows::{optional, parse, read_key, readable};
use super::{Records, RecordsError};

/// The summary of a build with an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedBuild {
    /// Its number.
    pub id: BuildId,
    /// Its submitter.
    pub submitter: Submitter,
    /// The project that it built.
    pub project: Option<ProjectName>,
    /// Its machine.
    pub machine: MachineName,
    /// Its toolchain.
    pub toolchain: ToolchainName,
    /// The name of the built package.
    pub target: Target,
    /// Its outcome.
    pub outcome: Outcome,
    /// The time of its submission.
    pub submitted: Timestamp,
    /// The time at which its last attempt started.
    pub started: Option<Timestamp>,
    /// The time at which its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// The number of errors that it reported.
    pub errors: u32,
    /// The number of warnings that it reported.
    pub warnings: u32,
}

impl FinishedBuild {
    /// Returns the summary of a build, if it has an outcome.
    pub fn of(build: &Build) -> Option<Self> {
        Some(Self {
            id: build.id,
            submitter: build.submitter.clone(),
            project: build.project.clone(),
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

/// Selects columns of the index `builds_ended` only, so that no row is read.
const ALL: &str =
    "SELECT id, submitter, project, machine, toolchain, target, outcome, submitted, started,
     finished, progress ->> 'errors' AS errors, progress ->> 'warnings' AS warnings
     FROM builds INDEXED BY builds_ended WHERE outcome IS NOT NULL";

impl Records {
    /// Converts the summary of each build with an outcome, in no particular order.
    pub async fn finished_builds<T: Send + 'static>(
        &self,
        convert: impl Fn(&FinishedBuild) -> T + Send + 'static,
    ) -> Result<Vec<T>, RecordsError> {
        let all = self.database.read(move |connection| {
            let mut select = connection.prepare_cached(ALL)?;
            let all = select.query_map([], |row| read(row).map(|build| convert(&build)))?;
            readable(all).collect()
        });
        all.await
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<FinishedBuild> {
    Ok(FinishedBuild {
        id: read_key(row.get("id")?),
        submitter: parse(row, "submitter")?,
        project: optional(row, "project")?,
        machine: parse(row, "machine")?,
        toolchain: parse(row, "toolchain")?,
        target: parse(row, "target")?,
        outcome: parse(row, "outcome")?,
        submitted: parse(row, "submitted")?,
        started: optional(row, "started")?,
        finished: optional(row, "finished")?,
        errors: row.get::<_, Option<u32>>("errors")?.unwrap_or_default(),
        warnings: row.get::<_, Option<u32>>("warnings")?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use config::builds::{Progress, State};

    use super::*;
    use telemetry::Telemetry;

    #[tokio::test]
    async fn finished_builds_are_read_from_the_index_alone() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
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
                records
                    .save_progress(build.id, build.progress)
                    .await
                    .unwrap();
            }
            if outcome.is_some() {
                build.enter(State::Finished, now).unwrap();
                build.outcome = outcome;
            }
            records.save(&mut build).await.unwrap();
            ended.extend(FinishedBuild::of(&build));
        }
        let mut found = records.finished_builds(FinishedBuild::clone).await.unwrap();
        found.sort_by_key(|it| it.id);
        assert_eq!((found.len(), &found), (2, &ended));
        let connection = records.database.reader().unwrap();
        let sql = format!("EXPLAIN QUERY PLAN {ALL}");
        let plan: String = connection
            .query_row(&sql, [], |row| row.get("detail"))
            .unwrap();
        assert_eq!(plan, "SCAN builds USING COVERING INDEX builds_ended");
    }
}
