//! The durations of earlier builds, for forecasts.

use std::collections::BTreeMap;

use config::MachineName;
use config::builds::Target;
use rusqlite::{Connection, params};

use super::{Records, RecordsError};

/// The number of builds of the same package that count, latest first.
const SAME_PACKAGE_MAX: u32 = 20;
/// The number of builds on the same machine that count if there are none of the package.
const SAME_MACHINE_MAX: u32 = 50;

/// The builds that count: those that succeeded, and in which no person typed.
macro_rules! counted {
    () => {
        "seconds IS NOT NULL AND outcome IN ('success', 'warning') AND typists = '[]'"
    };
}

/// Selects from the index `builds_package_seconds` alone.
const OF_PACKAGE: &str = concat!(
    "SELECT seconds FROM builds INDEXED BY builds_package_seconds WHERE machine = ?1 AND target = ?2 AND ",
    counted!(),
    " ORDER BY finished DESC LIMIT ?3"
);
/// Selects from the index `builds_machine_seconds` alone.
const OF_MACHINE: &str = concat!(
    "SELECT seconds FROM builds INDEXED BY builds_machine_seconds WHERE machine = ?1 AND ",
    counted!(),
    " ORDER BY finished DESC LIMIT ?2"
);

/// The durations of earlier builds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EarlierDurations {
    /// The durations in seconds, the latest first.
    pub seconds: Vec<f64>,
    /// `true` if they are those of builds of the same package, `false` if there are none and
    /// these are of all builds on the machine.
    pub same_package: bool,
}

impl Records {
    /// Returns the durations of earlier builds of each of these packages on each machine: of
    /// the last builds that succeeded, of the package if there are any.
    pub async fn earlier_durations(
        &self,
        subjects: Vec<(MachineName, Target)>,
    ) -> Result<BTreeMap<(MachineName, Target), EarlierDurations>, RecordsError> {
        let all = self.database.read(move |connection| {
            let mut of_machines = BTreeMap::new();
            let mut all = BTreeMap::new();
            for (machine, target) in subjects {
                let mut found = EarlierDurations {
                    seconds: of_package(connection, &machine, &target)?,
                    same_package: true,
                };
                if found.seconds.is_empty() {
                    found.same_package = false;
                    found.seconds = match of_machines.get(&machine) {
                        Some(seconds) => Vec::clone(seconds),
                        None => of_machine(connection, &machine)?,
                    };
                    of_machines.insert(machine.clone(), found.seconds.clone());
                }
                all.insert((machine, target), found);
            }
            Ok(all)
        });
        all.await
    }
}

fn of_package(
    connection: &Connection,
    machine: &MachineName,
    target: &Target,
) -> rusqlite::Result<Vec<f64>> {
    let mut select = connection.prepare_cached(OF_PACKAGE)?;
    let values = params![machine.as_str(), target.as_str(), SAME_PACKAGE_MAX];
    select.query_map(values, |row| row.get(0))?.collect()
}

fn of_machine(connection: &Connection, machine: &MachineName) -> rusqlite::Result<Vec<f64>> {
    let mut select = connection.prepare_cached(OF_MACHINE)?;
    let values = params![machine.as_str(), SAME_MACHINE_MAX];
    select.query_map(values, |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use config::builds::{State, Submitter, Typist};
    use config::task::Outcome;
    use jiff::Timestamp;
    use telemetry::Telemetry;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Records a build that ended at a second, with its duration.
    async fn ended(
        records: &Records,
        (machine, target): (&str, &str),
        end: i64,
        seconds: i64,
        outcome: Outcome,
    ) -> config::BuildId {
        let request = format!(r#"{{"machine": "{machine}", "target": "{target}", "sources": []}}"#);
        let request = serde_json::from_str(&request).unwrap();
        let toolchain = "default".parse().unwrap();
        let submit = records.submit(request, toolchain, Submitter::root(), at(0));
        let mut build = submit.await.unwrap();
        build.enter(State::Starting, at(end - seconds)).unwrap();
        build.enter(State::Finished, at(end)).unwrap();
        build.outcome = Some(outcome);
        records.save(&mut build).await.unwrap();
        build.id
    }

    #[tokio::test]
    async fn the_last_successful_builds_of_a_package_count_else_those_of_its_machine() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        for n in 1..=25 {
            ended(&records, ("linux", "hello"), 100 + n, n, Outcome::Success).await;
        }
        ended(&records, ("linux", "hello"), 300, 77, Outcome::Error).await;
        ended(&records, ("linux", "other"), 301, 3, Outcome::Warning).await;
        ended(&records, ("hurd", "hello"), 302, 9, Outcome::Success).await;
        let subjects = [
            ("linux", "hello"),
            ("linux", "new"),
            ("linux", "newer"),
            ("hurd", "hello"),
            ("empty", "hello"),
        ];
        let subject =
            |(machine, target): (&str, &str)| (machine.parse().unwrap(), target.parse().unwrap());
        let found = records.earlier_durations(subjects.map(subject).to_vec());
        let found = found.await.unwrap();
        let durations = |machine, target| {
            let found = &found[&subject((machine, target))];
            let first = found.seconds.first().copied();
            (found.seconds.len(), first, found.same_package)
        };
        assert_eq!(durations("linux", "hello"), (20, Some(25.0), true));
        assert_eq!(durations("linux", "new"), (26, Some(3.0), false));
        assert_eq!(durations("linux", "newer"), (26, Some(3.0), false));
        assert_eq!(durations("hurd", "hello"), (1, Some(9.0), true));
        assert_eq!(durations("empty", "hello"), (0, None, false));
    }

    #[tokio::test]
    async fn builds_in_which_a_person_typed_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let id = ended(&records, ("linux", "hello"), 9000, 8000, Outcome::Success).await;
        let typist = Typist {
            submitter: Submitter::root(),
            at: at(2000),
        };
        records.add_typist(id, typist).await.unwrap();
        let subject = ("linux".parse().unwrap(), "hello".parse().unwrap());
        let found = records.earlier_durations(vec![subject]).await.unwrap();
        let found = found.into_values().next().unwrap();
        assert_eq!(found.seconds, [0.0; 0]);
    }

    #[test]
    fn durations_are_read_from_indexes_alone_and_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
        let connection = records.database.reader().unwrap();
        let plan = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            let mut explain = connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            let rows = explain.query_map(values, |row| row.get("detail")).unwrap();
            rows.collect::<Result<Vec<String>, _>>().unwrap()
        };
        assert_eq!(
            plan(OF_PACKAGE, &[&"linux", &"hello", &1]),
            ["SEARCH builds USING COVERING INDEX builds_package_seconds (machine=? AND target=?)"]
        );
        assert_eq!(
            plan(OF_MACHINE, &[&"linux", &1]),
            ["SEARCH builds USING COVERING INDEX builds_machine_seconds (machine=?)"]
        );
    }
}
