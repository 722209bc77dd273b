//! The conversion of builds to rows and back.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use config::builds::{Build, GuestKind, Priority, State, Usage};
use config::task::Outcome;
use config::{BuildId, ProjectName, Revision, ScheduleName};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Inserts a build and returns its number. Ignores the number in `build`.
pub(super) fn insert(connection: &Connection, build: &Build) -> rusqlite::Result<BuildId> {
    insert_as(connection, build, None)
}

/// Inserts a build with a reserved number, or with the next one.
pub(super) fn insert_as(
    connection: &Connection,
    build: &Build,
    id: Option<BuildId>,
) -> rusqlite::Result<BuildId> {
    let sql = "INSERT INTO builds (submitter, priority, machine, toolchain, target, sources, task,
               after, state, phases, submitted, life, schedule, resources, secrets, forked_from,
               typists, controller, project, id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
               ?18, ?19, ?20)";
    connection.prepare_cached(sql)?.execute(params![
        build.submitter.as_str(),
        build.priority.0,
        build.machine.as_str(),
        build.toolchain.as_str(),
        build.target.as_str(),
        json(&build.sources)?,
        build.task.as_str(),
        json(&build.after)?,
        build.state.to_string(),
        json(&build.phases)?,
        time(build.submitted),
        json(&build.interactive)?,
        build.schedule.as_ref().map(ScheduleName::as_str),
        json(&build.resources)?,
        json(&build.secrets)?,
        json(&build.forked_from)?,
        json(&build.typists)?,
        json(&build.controller)?,
        build.project.as_ref().map(ProjectName::as_str),
        id.map(key),
    ])?;
    let id = connection.last_insert_rowid();
    for target in build.target.names() {
        name(connection, id, build.submitted, target)?;
    }
    Ok(read_key(id))
}

/// Updates the fields of a build that may change, except its progress, its typists and its
/// cancellation. Returns `false` and changes nothing if the record was saved or deleted since it
/// was read.
pub(super) fn update(connection: &Connection, build: &Build) -> rusqlite::Result<bool> {
    let sql = "UPDATE builds SET priority = ?2, state = ?3, outcome = ?4, message = ?5,
               attempts = ?6, not_before = ?7, revision = ?8, made = ?9, guest = ?10, frozen = ?11,
               started = ?12, finished = ?13, seconds = ?14, phases = ?15, cpu_milliseconds = ?16,
               memory_bytes_max = ?17, packages = ?18, artifacts = ?19, life = ?20,
               volume = ?21, trial = ?23, saves = saves + 1 WHERE id = ?1 AND saves = ?22";
    let changed = connection.prepare_cached(sql)?.execute(params![
        key(build.id),
        build.priority.0,
        build.state.to_string(),
        build.outcome.map(|outcome| outcome.to_string()),
        build.message,
        build.attempts,
        build.not_before.map(time),
        build.revision.map(|revision| revision.0),
        json(&build.inputs)?,
        build.guest.map(|kind| kind.to_string()),
        build.restored,
        build.started.map(time),
        build.finished.map(time),
        build.seconds(),
        json(&build.phases)?,
        build.usage.cpu_milliseconds.map(integer),
        build.usage.memory_bytes_max.map(integer),
        json(&build.packages)?,
        json(&build.artifacts)?,
        json(&build.interactive)?,
        build.volume.as_deref().and_then(Path::to_str),
        integer(build.saves),
        json(&build.trial)?,
    ])?;
    if changed == 0 {
        return Ok(false);
    }
    for built in &build.packages {
        name(
            connection,
            key(build.id),
            build.submitted,
            &built.package.name,
        )?;
    }
    Ok(true)
}

/// Adds a name under which a build is found.
fn name(
    connection: &Connection,
    id: i64,
    submitted: Timestamp,
    name: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO names (name, submitted, build) VALUES (?1, ?2, ?3)";
    connection
        .prepare_cached(sql)?
        .execute(params![name, time(submitted), id])
        .map(drop)
}

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: read_key(row.get("id")?),
        submitter: parse(row, "submitter")?,
        priority: Priority(row.get("priority")?),
        machine: parse(row, "machine")?,
        toolchain: parse(row, "toolchain")?,
        target: parse(row, "target")?,
        sources: from_json(row, "sources")?,
        task: parse(row, "task")?,
        resources: from_json(row, "resources")?,
        after: from_json(row, "after")?,
        secrets: from_json(row, "secrets")?,
        schedule: optional(row, "schedule")?,
        forked_from: from_json(row, "forked_from")?,
        controller: from_json(row, "controller")?,
        project: optional(row, "project")?,
        state: row
            .get::<_, String>("state")
            .map(|word| State::from_name(&word))?
            .ok_or_else(|| unreadable("state", &"not the state of a build"))?,
        outcome: optional::<Outcome>(row, "outcome")?,
        message: row.get("message")?,
        attempts: row.get("attempts")?,
        not_before: optional(row, "not_before")?,
        volume: row.get::<_, Option<String>>("volume")?.map(PathBuf::from),
        revision: row.get::<_, Option<u32>>("revision")?.map(Revision),
        inputs: from_json(row, "made")?,
        guest: row
            .get::<_, Option<String>>("guest")?
            .and_then(|word| GuestKind::from_name(&word)),
        restored: row.get("frozen")?,
        submitted: parse(row, "submitted")?,
        started: optional(row, "started")?,
        finished: optional(row, "finished")?,
        earlier_logs: Vec::new(),
        phases: from_json(row, "phases")?,
        usage: Usage {
            cpu_milliseconds: count(row, "cpu_milliseconds")?,
            memory_bytes_max: count(row, "memory_bytes_max")?,
        },
        interactive: from_json(row, "life")?,
        typists: from_json(row, "typists")?,
        trial: from_json(row, "trial")?,
        progress: from_json(row, "progress")?,
        packages: from_json(row, "packages")?,
        artifacts: from_json(row, "artifacts")?,
        saves: count(row, "saves")?.unwrap_or_default(),
        cancel_requested: row.get("cancel_requested")?,
    })
}

pub(super) fn key(id: BuildId) -> i64 {
    integer(id.0)
}

pub(super) fn read_key(key: i64) -> BuildId {
    BuildId(u64::try_from(key).unwrap_or_default())
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| u64::try_from(number).ok()))
}

/// Returns a time as text. The order of texts is that of the times.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

pub(super) fn unreadable(column: &str, fault: &dyn Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        0,
        Type::Text,
        format!("column {column}: {fault}").into(),
    )
}

pub(super) fn parse<T: FromStr<Err: Display>>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|fault: T::Err| unreadable(column, &fault))
}

pub(super) fn optional<T: FromStr<Err: Display>>(
    row: &Row<'_>,
    column: &str,
) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| {
        text.parse()
            .map_err(|fault: T::Err| unreadable(column, &fault))
    };
    text.map(parse).transpose()
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|fault| unreadable(column, &fault))
}

/// Leaves out the rows that cannot be read, such as one with a value of a newer agent: a bad row
/// must not hide the others. The doctor reports it ([`super::Integrity`]).
pub(super) fn readable<T>(
    rows: impl Iterator<Item = rusqlite::Result<T>>,
) -> impl Iterator<Item = rusqlite::Result<T>> {
    rows.filter(|row| !row.as_ref().is_err_and(is_of_row))
}

/// Returns true if an error concerns the values of one row.
pub(super) fn is_of_row(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

/// Returns all rows of a query without parameters.
pub(super) fn all<T, C: FromIterator<T>>(
    connection: &Connection,
    sql: &str,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<C> {
    connection.prepare(sql)?.query_map([], read)?.collect()
}
