//! The format of the records: what each version of it added to the one before.

use config::builds::{Phase, State, Target};
use config::task::{Digest, Source};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::rows::{json, listed, maybe, parsed, time};

/// What changes the format from each version to the next.
pub(super) const MIGRATIONS: [fn(&Transaction<'_>) -> rusqlite::Result<()>; 8] =
    [first, second, third, fourth, fifth, sixth, seventh, eighth];

/// Brings a file from the format `from` up to date, wholly or not at all.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (step, format) in MIGRATIONS.iter().zip(1i64..).skip(from) {
        step(&transaction)?;
        transaction.pragma_update(None, "user_version", format)?;
    }
    transaction.commit()
}

/// One row for each build; its lists are JSON.
fn first(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE builds (
            id        INTEGER PRIMARY KEY AUTOINCREMENT,
            machine   TEXT NOT NULL,
            toolchain TEXT NOT NULL,
            sources   TEXT NOT NULL,
            state     TEXT NOT NULL,
            outcome   TEXT,
            message   TEXT NOT NULL DEFAULT '',
            attempts  INTEGER NOT NULL DEFAULT 0,
            revision  INTEGER,
            submitted TEXT NOT NULL,
            started   TEXT,
            finished  TEXT,
            packages  TEXT NOT NULL DEFAULT '[]',
            artifacts TEXT NOT NULL DEFAULT '[]'
        ) STRICT;
        CREATE INDEX builds_unfinished ON builds (id) WHERE state <> 'finished';",
    )
}

/// Whether a guest was woken, and when it asked for its task.
fn second(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN contacted TEXT;
         ALTER TABLE builds ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;",
    )
}

/// Who asked, what for, and how it went; times of one width, so that their order is
/// that of their text; and an index for each way to ask for builds.
fn third(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN submitter        TEXT NOT NULL DEFAULT 'root';
         ALTER TABLE builds ADD COLUMN priority         INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE builds ADD COLUMN target           TEXT NOT NULL DEFAULT '-';
         ALTER TABLE builds ADD COLUMN task             TEXT NOT NULL DEFAULT '';
         ALTER TABLE builds ADD COLUMN after            TEXT NOT NULL DEFAULT '[]';
         ALTER TABLE builds ADD COLUMN not_before       TEXT;
         ALTER TABLE builds ADD COLUMN made             TEXT NOT NULL DEFAULT 'null';
         ALTER TABLE builds ADD COLUMN guest            TEXT;
         ALTER TABLE builds ADD COLUMN phases           TEXT NOT NULL DEFAULT '[]';
         ALTER TABLE builds ADD COLUMN cpu_milliseconds INTEGER;
         ALTER TABLE builds ADD COLUMN memory_bytes_max INTEGER;
         ALTER TABLE builds ADD COLUMN progress         TEXT NOT NULL DEFAULT '{}';
         ALTER TABLE builds ADD COLUMN seconds          REAL;",
    )?;
    complete(transaction)?;
    transaction.execute_batch(
        "ALTER TABLE builds DROP COLUMN contacted;
         -- By what a build is found: its target and the packages that came out.
         CREATE TABLE names (
            name      TEXT NOT NULL,
            submitted TEXT NOT NULL,
            build     INTEGER NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
            PRIMARY KEY (name, submitted, build)
         ) STRICT, WITHOUT ROWID;
         CREATE INDEX names_of_build ON names (build);
         INSERT INTO names SELECT target, submitted, id FROM builds;
         INSERT OR IGNORE INTO names
            SELECT package.value ->> 'name', builds.submitted, builds.id
            FROM builds, json_each(builds.packages) AS package;
         CREATE INDEX builds_submitted ON builds (submitted);
         CREATE INDEX builds_finished  ON builds (finished) WHERE finished IS NOT NULL;
         CREATE INDEX builds_seconds   ON builds (seconds) WHERE seconds IS NOT NULL;
         CREATE INDEX builds_machine   ON builds (machine, submitted);
         CREATE INDEX builds_toolchain ON builds (toolchain, submitted);
         CREATE INDEX builds_outcome   ON builds (outcome, submitted);
         CREATE INDEX builds_state     ON builds (state, submitted);
         CREATE INDEX builds_submitter ON builds (submitter, submitted);",
    )
}

/// The keys under which builds were asked for.
fn fourth(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE keys (
            submitter TEXT NOT NULL,
            key       TEXT NOT NULL,
            sha256    TEXT NOT NULL,
            build     INTEGER NOT NULL,
            at        TEXT NOT NULL,
            PRIMARY KEY (submitter, key)
         ) STRICT, WITHOUT ROWID;
         CREATE INDEX keys_at ON keys (at);",
    )
}

/// The builds whose records are deleted and whose directories are still to go.
fn fifth(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("CREATE TABLE removed (id INTEGER PRIMARY KEY) STRICT;")
}

/// What waits for a person.
fn sixth(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN life TEXT NOT NULL DEFAULT '{}';
         CREATE INDEX builds_held ON builds (id) WHERE life ->> 'held' IS NOT NULL;",
    )
}

/// The schedules, and the builds that they asked for.
fn seventh(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE schedules (
            name      TEXT PRIMARY KEY,
            timing    TEXT NOT NULL,
            build     TEXT NOT NULL,
            submitter TEXT NOT NULL,
            added     TEXT NOT NULL,
            since     TEXT NOT NULL,
            last      TEXT NOT NULL
         ) STRICT, WITHOUT ROWID;
         ALTER TABLE builds ADD COLUMN schedule TEXT;
         CREATE INDEX builds_schedule ON builds (schedule, submitted)
            WHERE schedule IS NOT NULL;",
    )
}

/// All that a list of every build that has ended tells, without their rows.
fn eighth(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE INDEX builds_ended ON builds (id, submitter, machine, toolchain, target, outcome,
            submitted, started, finished, progress ->> 'errors', progress ->> 'warnings')
            WHERE outcome IS NOT NULL;",
    )
}

/// Fills in what follows from the other columns.
fn complete(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT * FROM builds")?;
    let mut update = transaction.prepare(
        "UPDATE builds SET target = ?2, task = ?3, phases = ?4, submitted = ?5, started = ?6,
         finished = ?7, seconds = ?8 WHERE id = ?1",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let sources: Vec<Source> = listed(row, "sources")?;
        let task: Digest = super::task(
            &parsed(row, "machine")?,
            &parsed(row, "toolchain")?,
            &sources,
        );
        let submitted: Timestamp = parsed(row, "submitted")?;
        let started: Option<Timestamp> = maybe(row, "started")?;
        let finished: Option<Timestamp> = maybe(row, "finished")?;
        let known = [
            (State::Queued, Some(submitted)),
            (State::Starting, started),
            (State::Running, maybe(row, "contacted")?),
            (State::Finished, finished),
        ];
        let phases = known.iter().filter_map(|(state, at)| {
            let state = *state;
            at.map(|at| Phase { state, at })
        });
        update.execute(params![
            row.get::<_, i64>("id")?,
            Target::from_sources(&sources).as_str(),
            task.as_str(),
            json(&phases.collect::<Vec<_>>())?,
            time(submitted),
            started.map(time),
            finished.map(time),
            started
                .zip(finished)
                .map(|(from, to)| to.duration_since(from).as_secs_f64()),
        ])?;
    }
    Ok(())
}
