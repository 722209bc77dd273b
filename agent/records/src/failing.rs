//! Packages whose last build on a machine has failed.
//!
//! The search begins with the newest failures, so that its time does not depend on the number of
//! builds.

use std::collections::BTreeSet;

use config::builds::FailingPackage;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{parse, read, read_key};
use super::{Records, RecordsError};

/// The number of failures of each outcome that are considered, newest first.
const CONSIDERED_MAX: u32 = 300;
/// The number of earlier builds of a package that are considered.
const HISTORY_MAX: u32 = 100;

/// The builds of the package and machine of another one. `names` has each name of a target.
macro_rules! of_same_package {
    ($time:literal, $order:literal) => {
        concat!(
            "SELECT builds.id, builds.outcome, builds.revision
             FROM names CROSS JOIN builds ON builds.id = names.build
             WHERE names.name = ?1 AND names.submitted ",
            $time,
            " ?2 AND +builds.machine = ?3 AND +builds.target = ?4
             AND +builds.outcome IN ('success', 'warning', 'error', 'abnormal')
             ORDER BY names.submitted ",
            $order
        )
    };
}

/// A failure.
struct Failure {
    id: i64,
    machine: String,
    target: String,
    submitted: String,
}

impl Records {
    /// Returns the packages whose last build on a machine has failed, the newest failure first.
    /// Canceled, interrupted and skipped builds do not count.
    pub async fn failing(&self, count_max: usize) -> Result<Vec<FailingPackage>, RecordsError> {
        self.database
            .read(move |connection| {
                let mut failing = Vec::new();
                for failure in newest(connection)? {
                    if failing.len() == count_max {
                        break;
                    }
                    if !has_newer(connection, &failure)? {
                        failing.extend(describe(connection, &failure)?);
                    }
                }
                Ok(failing)
            })
            .await
    }
}

/// Returns the newest failure of each package and machine, newest first.
fn newest(connection: &Connection) -> rusqlite::Result<Vec<Failure>> {
    let sql = "SELECT id, machine, target, submitted FROM builds WHERE outcome = ?1
               ORDER BY submitted DESC LIMIT ?2";
    let mut select = connection.prepare_cached(sql)?;
    let mut all = Vec::new();
    for outcome in ["error", "abnormal"] {
        let rows = select.query_map(params![outcome, CONSIDERED_MAX], |row| {
            Ok(Failure {
                id: row.get(0)?,
                machine: row.get(1)?,
                target: row.get(2)?,
                submitted: row.get(3)?,
            })
        })?;
        for row in rows {
            all.push(row?);
        }
    }
    all.sort_by(|a, b| (&b.submitted, b.id).cmp(&(&a.submitted, a.id)));
    let mut seen = BTreeSet::new();
    all.retain(|it| seen.insert((it.machine.clone(), it.target.clone())));
    Ok(all)
}

/// Returns true if a newer build of the package on the machine has ended.
fn has_newer(connection: &Connection, failure: &Failure) -> rusqlite::Result<bool> {
    let mut select = connection.prepare_cached(of_same_package!(">", "ASC"))?;
    select.exists(values(failure))
}

/// Returns the failures of the package in a row; `None` if the record cannot be read.
fn describe(
    connection: &Connection,
    failure: &Failure,
) -> rusqlite::Result<Option<FailingPackage>> {
    let mut select = connection.prepare_cached("SELECT * FROM builds WHERE id = ?1")?;
    let Ok(Some(last)) = select.query_row([failure.id], read).optional() else {
        return Ok(None);
    };
    let mut package = FailingPackage {
        first: last.id,
        last,
        failures: 1,
        good: None,
    };
    let mut select = connection.prepare_cached(of_same_package!("<", "DESC"))?;
    let mut rows = select.query(values(failure))?;
    for _ in 0..HISTORY_MAX {
        let Some(row) = rows.next()? else { break };
        let id = read_key(row.get(0)?);
        let outcome: config::task::Outcome = parse(row, "outcome")?;
        if outcome.is_good() {
            let revision: Option<u32> = row.get("revision")?;
            package.good = Some((id, revision.map(config::Revision)));
            break;
        }
        package.first = id;
        package.failures += 1;
    }
    Ok(Some(package))
}

fn values(failure: &Failure) -> [&str; 4] {
    let name = failure.target.split(' ').next().unwrap_or_default();
    [name, &failure.submitted, &failure.machine, &failure.target]
}

#[cfg(test)]
mod tests {
    use config::BuildId;
    use config::builds::{Request, State, Submitter};
    use config::task::Outcome;
    use jiff::Timestamp;
    use telemetry::Telemetry;

    use super::*;

    #[tokio::test]
    async fn a_package_fails_until_it_is_built() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let all = [
            ("hello", Outcome::Success),
            ("hello", Outcome::Error),
            ("zlib a", Outcome::Error),
            ("zlib", Outcome::Abnormal),
            ("hello", Outcome::Abort),
            ("hello", Outcome::Abnormal),
            ("zlib", Outcome::Warning),
            ("hello", Outcome::Abort),
        ];
        for ((target, outcome), second) in all.into_iter().zip(1..) {
            let at = Timestamp::from_second(second).unwrap();
            let text = format!(r#"{{"machine": "linux", "sources": [], "target": "{target}"}}"#);
            let request: Request = serde_json::from_str(&text).unwrap();
            let (toolchain, who) = ("default".parse().unwrap(), Submitter::root());
            let build = records.submit(request, toolchain, who, at).await;
            let mut build = build.unwrap();
            build.enter(State::Starting, at).unwrap();
            build.enter(State::Finished, at).unwrap();
            build.outcome = Some(outcome);
            build.revision = Some(config::Revision(7));
            records.save(&mut build).await.unwrap();
        }
        let failing = records.failing(9).await.unwrap();
        let short = failing.iter().map(|it| (it.last.id, it.first, it.failures));
        let expected = [(BuildId(6), BuildId(2), 2), (BuildId(3), BuildId(3), 1)];
        assert_eq!(short.collect::<Vec<_>>(), expected);
        assert_eq!(
            failing[0].good,
            Some((BuildId(1), Some(config::Revision(7))))
        );
        assert_eq!(failing[1].good, None, "another target");
        assert_eq!(records.failing(1).await.unwrap().len(), 1);
    }
}
