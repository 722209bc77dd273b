//! Measures listings of 100,000 recorded builds, each beside the same query put to
//! the `sqlite3` shell by hand.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "this is a measurement"
)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use agent::records::Records;
use config::builds::ListQuery;

const BUILDS: u32 = 100_000;
const ROUNDS: u32 = 20;

/// What is asked for, and the same in SQL.
const QUESTIONS: [(&str, &str); 6] = [
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

fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("records.sqlite3");
    let records = Records::open(&path)?;
    fill(&path)?;
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{BUILDS} builds, pages of 100; medians of {ROUNDS}");
    for (query, sql) in QUESTIONS {
        let listing: ListQuery = serde_urlencoded::from_str(query)?;
        let ours = median(|| {
            runtime
                .block_on(records.list(listing.clone()))
                .map(|it| it.len())
        });
        let sql = format!("SELECT * FROM builds WHERE {sql} LIMIT 100");
        let shell = median(|| {
            let mut command = sys::command::prepare("sqlite3");
            command.arg(&path).arg(&sql);
            sys::command::run(command, Duration::from_mins(1)).map(|it| it.len())
        });
        println!("{:8.2} ms  sqlite3 shell {:8.2} ms  {query}", ours?, shell?);
    }
    Ok(())
}

/// Milliseconds.
fn median<T, E>(mut work: impl FnMut() -> Result<T, E>) -> Result<f64, E> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        work()?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1000.0)
}

/// Records builds in one go: 10 machines, 200 packages, one failure in 20.
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
