//! The migrations of the database: each upgrades it from one version to the next.

use config::builds::{Phase, State, Target};
use config::task::{Digest, Source};
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};

use super::rows::{from_json, json, optional, parse, time};

/// The migrations, by the version that they start from.
pub(super) const MIGRATIONS: [fn(&Transaction<'_>) -> rusqlite::Result<()>; 22] = [
    v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15, v16, v17, v18, v19, v20, v21,
    v22,
];

/// Migrates a database of version `from` to the newest in one transaction.
pub(super) fn migrate(connection: &mut Connection, from: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for (migrate, version) in MIGRATIONS.iter().zip(1i64..).skip(from) {
        migrate(&transaction)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()
}

/// Creates one row for each build; its lists are JSON.
fn v1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
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

/// Adds the time of the guest's request for its task, and whether it was restored.
fn v2(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN contacted TEXT;
         ALTER TABLE builds ADD COLUMN frozen INTEGER NOT NULL DEFAULT 0;",
    )
}

/// Adds the submitter, the target and the phases; rewrites times with a fixed width, so that
/// their text sorts; adds an index for each property that listings filter by.
fn v3(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
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
         -- The names by which a build is found: its target and its packages.
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

/// Adds the idempotency keys.
fn v4(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
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

/// Adds the deleted builds whose directories must be deleted.
fn v5(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("CREATE TABLE removed (id INTEGER PRIMARY KEY) STRICT;")
}

/// Adds the interactive options and holds.
fn v6(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN life TEXT NOT NULL DEFAULT '{}';
         CREATE INDEX builds_held ON builds (id) WHERE life ->> 'held' IS NOT NULL;",
    )
}

/// Adds the schedules, and the schedule of each build.
fn v7(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
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

/// Adds an index that covers the list of finished builds.
fn v8(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE INDEX builds_ended ON builds (id, submitter, machine, toolchain, target, outcome,
            submitted, started, finished, progress ->> 'errors', progress ->> 'warnings')
            WHERE outcome IS NOT NULL;",
    )
}

/// Adds the volume on which each build ran.
fn v9(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("ALTER TABLE builds ADD COLUMN volume TEXT;")
}

/// Adds the people who typed on consoles, and the records that are about to be finished.
fn v10(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN typists TEXT NOT NULL DEFAULT '[]';
         CREATE TABLE concluded (
            build  INTEGER PRIMARY KEY REFERENCES builds (id) ON DELETE CASCADE,
            record TEXT NOT NULL
         ) STRICT;",
    )
}

/// Adds the number of times that each record was saved, and the accepted cancellations.
fn v11(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN saves            INTEGER NOT NULL DEFAULT 0;
         ALTER TABLE builds ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0;",
    )
}

/// Adds the resources that builds ask for.
fn v12(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("ALTER TABLE builds ADD COLUMN resources TEXT NOT NULL DEFAULT '{}';")
}

/// Adds indexes of the durations of earlier builds, by package and by machine.
fn v13(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE INDEX builds_package_seconds
            ON builds (machine, target, finished, seconds, outcome, typists)
            WHERE seconds IS NOT NULL AND outcome IN ('success', 'warning') AND typists = '[]';
         CREATE INDEX builds_machine_seconds ON builds (machine, finished, seconds, outcome, typists)
            WHERE seconds IS NOT NULL AND outcome IN ('success', 'warning') AND typists = '[]';",
    )
}

/// Adds the names of the secrets of each build.
fn v14(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch("ALTER TABLE builds ADD COLUMN secrets TEXT NOT NULL DEFAULT '[]';")
}

/// Adds the attempts on revisions on trial.
fn v15(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN trial TEXT NOT NULL DEFAULT 'null';
         CREATE INDEX builds_trial ON builds (machine, id) WHERE trial <> 'null';",
    )
}

/// Adds the origin of builds that continue as copies of others.
fn v16(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .execute_batch("ALTER TABLE builds ADD COLUMN forked_from TEXT NOT NULL DEFAULT 'null';")
}

/// Adds the tasks of controllers, and the leases under which they were taken.
fn v17(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN controller TEXT NOT NULL DEFAULT 'null';
         CREATE TABLE leases (
            build      INTEGER PRIMARY KEY REFERENCES builds (id) ON DELETE CASCADE,
            controller TEXT NOT NULL,
            session    TEXT NOT NULL,
            terms      TEXT NOT NULL,
            taken      TEXT NOT NULL,
            sent       TEXT NOT NULL DEFAULT '[]',
            failures   INTEGER NOT NULL DEFAULT 0,
            failure    TEXT NOT NULL DEFAULT '',
            settled    TEXT,
            answer     TEXT NOT NULL DEFAULT '',
            UNIQUE (controller, session)
         ) STRICT;
         CREATE INDEX leases_open ON leases (build) WHERE settled IS NULL;",
    )
}

/// Adds the projects of schedules.
fn v18(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .execute_batch("ALTER TABLE schedules ADD COLUMN project TEXT NOT NULL DEFAULT 'null';")
}

/// Adds the projects of builds.
fn v19(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "ALTER TABLE builds ADD COLUMN project TEXT;
         CREATE INDEX builds_project ON builds (project, submitted) WHERE project IS NOT NULL;
         DROP INDEX builds_ended;
         CREATE INDEX builds_ended ON builds (id, submitter, project, machine, toolchain, target,
            outcome, submitted, started, finished, progress ->> 'errors', progress ->> 'warnings')
            WHERE outcome IS NOT NULL;",
    )
}

/// Adds the notifications, and the states of packages that rules about changes compare.
fn v20(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE notifications (
            number   INTEGER PRIMARY KEY AUTOINCREMENT,
            id       TEXT NOT NULL UNIQUE,
            rule     TEXT NOT NULL,
            build    INTEGER NOT NULL,
            content  TEXT NOT NULL,
            created  TEXT NOT NULL,
            failures INTEGER NOT NULL DEFAULT 0,
            failure  TEXT NOT NULL DEFAULT '',
            settled  TEXT,
            given_up INTEGER NOT NULL DEFAULT 0,
            UNIQUE (rule, build)
         ) STRICT;
         CREATE INDEX notifications_open ON notifications (rule, number) WHERE settled IS NULL;
         CREATE TABLE package_states (
            rule    TEXT NOT NULL,
            machine TEXT NOT NULL,
            package TEXT NOT NULL,
            state   TEXT NOT NULL,
            PRIMARY KEY (rule, machine, package)
         ) STRICT, WITHOUT ROWID;",
    )
}

/// Adds the builds whose packages feeds publish.
fn v21(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE feed_builds (
            feed     TEXT NOT NULL,
            build    INTEGER NOT NULL,
            failures INTEGER NOT NULL DEFAULT 0,
            failure  TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (feed, build)
         ) STRICT, WITHOUT ROWID;",
    )
}

/// Adds the problems of the host that were told; a notification about one has no build.
fn v22(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "CREATE TABLE told (
            number   INTEGER PRIMARY KEY AUTOINCREMENT,
            id       TEXT NOT NULL UNIQUE,
            rule     TEXT NOT NULL,
            build    INTEGER,
            content  TEXT NOT NULL,
            created  TEXT NOT NULL,
            failures INTEGER NOT NULL DEFAULT 0,
            failure  TEXT NOT NULL DEFAULT '',
            settled  TEXT,
            given_up INTEGER NOT NULL DEFAULT 0,
            UNIQUE (rule, build)
         ) STRICT;
         INSERT INTO told SELECT number, id, rule, build, content, created, failures, failure,
            settled, given_up FROM notifications ORDER BY number;
         DROP TABLE notifications;
         ALTER TABLE told RENAME TO notifications;
         CREATE INDEX notifications_open ON notifications (rule, number) WHERE settled IS NULL;
         CREATE TABLE told_problems (
            rule    TEXT NOT NULL,
            problem TEXT NOT NULL,
            subject TEXT NOT NULL,
            content TEXT NOT NULL,
            PRIMARY KEY (rule, problem, subject)
         ) STRICT, WITHOUT ROWID;",
    )
}

/// Computes the new columns from the others.
fn complete(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut select = transaction.prepare("SELECT * FROM builds")?;
    let mut update = transaction.prepare(
        "UPDATE builds SET target = ?2, task = ?3, phases = ?4, submitted = ?5, started = ?6,
         finished = ?7, seconds = ?8 WHERE id = ?1",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let sources: Vec<Source> = from_json(row, "sources")?;
        let task: Digest =
            super::task(&parse(row, "machine")?, &parse(row, "toolchain")?, &sources);
        let submitted: Timestamp = parse(row, "submitted")?;
        let started: Option<Timestamp> = optional(row, "started")?;
        let finished: Option<Timestamp> = optional(row, "finished")?;
        let known = [
            (State::Queued, Some(submitted)),
            (State::Starting, started),
            (State::Running, optional(row, "contacted")?),
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
