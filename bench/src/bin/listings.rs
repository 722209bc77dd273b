//! The duration of listings of 100,000 recorded builds, compared with the same queries in the
//! `sqlite3` shell.

#![expect(clippy::print_stdout, reason = "a measurement prints its results")]

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bench::statistics::{alternate, median, time};
use bench::table::milliseconds;
use config::builds::ListQuery;
use records::Records;
use telemetry::Telemetry;

const BUILDS: u32 = 100_000;
const ROUNDS: usize = 20;

/// The queries of the API, each with the equivalent SQL.
const QUERIES: [(&str, &str); 6] = [
    ("count=100", "1 ORDER BY submitted DESC, id DESC"),
    (
        "machine=m3&count=100",
        "machine = 'm3' ORDER BY submitted DESC, id DESC",
    ),
    (
        "outcome=error&count=100",
        "outcome = 'error' ORDER BY submitted DESC, id DESC",
    ),
    (
        "submitter=eve&machine=m0&count=100",
        "submitter = 'eve' AND machine = 'm0' ORDER BY submitted DESC, id DESC",
    ),
    (
        "package=p77&count=100",
        "id IN (SELECT build FROM names WHERE name = 'p77') ORDER BY submitted DESC, id DESC",
    ),
    (
        "sort=seconds&count=100",
        "seconds IS NOT NULL ORDER BY seconds DESC, id DESC",
    ),
];

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("records.sqlite3");
    let records = Records::open(&path, Telemetry::default())?;
    fill(&path)?;
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{BUILDS} builds, pages of 100; medians of {ROUNDS} rounds");
    println!("{:>11}  {:>11}  query", "buildhost", "sqlite3");
    for (query, sql) in QUERIES {
        let query_list: ListQuery = serde_urlencoded::from_str(query)?;
        let list = || {
            time(|| {
                runtime.block_on(records.list(query_list.clone()))?;
                Ok(())
            })
        };
        let sql = format!("SELECT * FROM builds WHERE {sql} LIMIT 100");
        let shell = || {
            time(|| {
                let mut shell = sys::command::prepare("sqlite3");
                shell.arg(&path).arg(&sql);
                sys::command::run(shell, Duration::from_mins(1))?;
                Ok(())
            })
        };
        let (list, shell) = alternate(ROUNDS, list, shell)?;
        let [list, shell] = [list, shell].map(|durations| milliseconds(median(durations)));
        println!("{list:>11}  {shell:>11}  {query}");
    }
    Ok(())
}

/// Records all builds in one statement: 10 machines, 200 packages, one failure in 20.
fn fill(path: &Path) -> rusqlite::Result<()> {
    let connection = rusqlite::Connection::open(path)?;
    let sources = format!(
        r#"[{{"name":"p-1.0.tar.gz","sha256":"{}"}}]"#,
        "a".repeat(64)
    );
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO builds (machine, toolchain, sources, state, outcome, submitted, started,
            finished, seconds, submitter, target, task)
         SELECT 'm' || (i % 10), 'default', ?2, 'finished', iif(i % 20, 'success', 'error'),
            strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000000 + i * 60, 'unixepoch'),
            strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000001 + i * 60, 'unixepoch'),
            strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000011 + i * 60, 'unixepoch'),
            i * 7919 % 1000, iif(i % 100, 'adam', 'eve'), 'p' || (i % 200), ?3 FROM n",
        rusqlite::params![BUILDS, sources, "b".repeat(64)],
    )?;
    connection.execute(
        "INSERT INTO names SELECT target, submitted, id FROM builds",
        [],
    )?;
    Ok(())
}
