//! The leases of tasks that controllers gave, which are also the outbox: a lease is open until the
//! controller has the result of its build, and an open lease keeps the build from being deleted.
//!
//! They are in the database of the records, so that a task and its build are recorded in one
//! transaction, and a result is to be reported exactly when its record says so.

use config::builds::{Build, ControllerTask, Request, Submitter};
use config::{BuildId, ControllerName, ToolchainName};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{self, from_json, key, optional, parse, read, read_key, readable, time};
use super::updates::build_of;
use super::{Records, RecordsError};

/// The lease of a task, with what was reported to its controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The build that is made for the task.
    pub build: BuildId,
    /// The controller.
    pub controller: ControllerName,
    /// The session of the task.
    pub session: String,
    /// The terms, as the controller's client wrote them.
    pub terms: String,
    /// The time at which the task was taken.
    pub taken: Timestamp,
    /// The parts of the report that the controller has, besides the result.
    pub sent: Vec<String>,
    /// The number of failed attempts to report since the last success.
    pub failures: u32,
    /// The failure of the last attempt; may be empty.
    pub failure: String,
    /// The time at which the lease was settled; `None` while it is open.
    pub settled: Option<Timestamp>,
    /// The controller's answer to the result; may be empty.
    pub answer: String,
}

/// The recorded leases of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerCounts {
    /// The controller.
    pub controller: ControllerName,
    /// The number of tasks that it gave, of builds that are still recorded.
    pub taken: u32,
    /// The number of those whose lease is open.
    pub open: u32,
}

impl Records {
    /// Reserves the number of the next build.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn reserve_id(&self) -> Result<BuildId, RecordsError> {
        let reserve = self.database.write(|transaction| {
            transaction.execute(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'builds', 0
                 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'builds')",
                [],
            )?;
            let sql =
                "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'builds' RETURNING seq";
            transaction.query_row(sql, [], |row| row.get(0).map(read_key))
        });
        reserve.await
    }

    /// Creates the build of a controller's task with a reserved number, and its lease. Returns
    /// `None` and creates nothing if there is a lease of this session.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn submit_leased(
        &self,
        id: BuildId,
        request: Request,
        toolchain: ToolchainName,
        submitter: Submitter,
        terms: String,
        now: Timestamp,
    ) -> Result<Option<Build>, RecordsError> {
        let mut build = build_of(request, toolchain, submitter, now);
        build.id = id;
        let insert = self.database.write(move |transaction| {
            let Some(task) = build.controller.clone() else {
                return Ok(None);
            };
            if is_taken(transaction, &task)? {
                return Ok(None);
            }
            rows::insert_as(transaction, &build, Some(id))?;
            let sql = "INSERT INTO leases (build, controller, session, terms, taken)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.prepare_cached(sql)?.execute(params![
                key(id),
                task.controller.as_str(),
                task.session,
                terms,
                time(now),
            ])?;
            Ok(Some(build))
        });
        let build = insert.await?;
        if let Some(build) = &build {
            self.telemetry.events.build(build);
        }
        Ok(build)
    }

    /// Returns the open leases, oldest first, each with its build.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn open_leases(&self) -> Result<Vec<(Lease, Build)>, RecordsError> {
        let leases = self.database.read(|connection| {
            let sql = "SELECT * FROM leases WHERE settled IS NULL ORDER BY build";
            let mut select = connection.prepare_cached(sql)?;
            let leases: Vec<Lease> =
                readable(select.query_map([], read_lease)?).collect::<rusqlite::Result<_>>()?;
            let sql = "SELECT * FROM builds WHERE id = ?1";
            let mut select = connection.prepare_cached(sql)?;
            let with_build = |lease: Lease| {
                let build = select.query_row([key(lease.build)], read)?;
                Ok((lease, build))
            };
            readable(leases.into_iter().map(with_build)).collect()
        });
        leases.await
    }

    /// Returns the lease of a build.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn lease(&self, build: BuildId) -> Result<Option<Lease>, RecordsError> {
        let lease = self.database.read(move |connection| {
            let sql = "SELECT * FROM leases WHERE build = ?1";
            let mut select = connection.prepare_cached(sql)?;
            select.query_row([key(build)], read_lease).optional()
        });
        lease.await
    }

    /// Returns the build of a session; `None` if it was deleted or never made.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn build_of_session(
        &self,
        controller: ControllerName,
        session: String,
    ) -> Result<Option<BuildId>, RecordsError> {
        let build = self.database.read(move |connection| {
            let sql = "SELECT build FROM leases WHERE controller = ?1 AND session = ?2";
            let mut select = connection.prepare_cached(sql)?;
            let found = select.query_row([controller.as_str(), &session], |row| row.get(0));
            Ok(found.optional()?.map(read_key))
        });
        build.await
    }

    /// Records that a part of the report has reached the controller.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn lease_part_sent(&self, build: BuildId, part: String) -> Result<(), RecordsError> {
        let sent = self.database.write(move |transaction| {
            let sql = "UPDATE leases SET sent = json_insert(sent, '$[#]', ?2), failures = 0,
                       failure = '' WHERE build = ?1 AND settled IS NULL
                       AND NOT EXISTS (SELECT 1 FROM json_each(sent) WHERE value = ?2)";
            transaction
                .prepare_cached(sql)?
                .execute(params![key(build), part])
        });
        sent.await.map(drop)
    }

    /// Records that an attempt to report has failed.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn lease_failed(&self, build: BuildId, failure: String) -> Result<(), RecordsError> {
        let failed = self.database.write(move |transaction| {
            let sql = "UPDATE leases SET failures = failures + 1, failure = ?2
                       WHERE build = ?1 AND settled IS NULL";
            transaction
                .prepare_cached(sql)?
                .execute(params![key(build), failure])
        });
        failed.await.map(drop)
    }

    /// Settles a lease with the controller's answer. A lease that is settled stays as it is.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn settle_lease(
        &self,
        build: BuildId,
        answer: String,
        now: Timestamp,
    ) -> Result<(), RecordsError> {
        let settle = self.database.write(move |transaction| {
            let sql = "UPDATE leases SET settled = ?3, answer = ?2, failure = ''
                       WHERE build = ?1 AND settled IS NULL";
            transaction
                .prepare_cached(sql)?
                .execute(params![key(build), answer, time(now)])
        });
        settle.await.map(drop)
    }

    /// Settles all open leases of a controller, and returns the number of them. Settles none and returns
    /// `None` if the build of one has not ended.
    ///
    /// # Errors
    /// The records cannot be written.
    pub async fn settle_leases_of(
        &self,
        controller: ControllerName,
        answer: String,
        now: Timestamp,
    ) -> Result<Option<usize>, RecordsError> {
        let settle = self.database.write(move |transaction| {
            let sql = "SELECT EXISTS (SELECT 1 FROM leases JOIN builds ON builds.id = leases.build
                       WHERE leases.controller = ?1 AND settled IS NULL AND state <> 'finished')";
            let mut select = transaction.prepare_cached(sql)?;
            if select.query_row([controller.as_str()], |row| row.get(0))? {
                return Ok(None);
            }
            let sql = "UPDATE leases SET settled = ?3, answer = ?2, failure = ''
                       WHERE controller = ?1 AND settled IS NULL";
            let values = params![controller.as_str(), answer, time(now)];
            let settled = transaction.prepare_cached(sql)?.execute(values)?;
            Ok(Some(settled))
        });
        settle.await
    }

    /// Returns the number of leases of each controller that has some.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn lease_counts(&self) -> Result<Vec<ControllerCounts>, RecordsError> {
        let counts = self.database.read(|connection| {
            let sql = "SELECT controller, count(*) AS taken, sum(settled IS NULL) AS open
                       FROM leases GROUP BY controller ORDER BY controller";
            let count = |row: &Row<'_>| {
                Ok(ControllerCounts {
                    controller: parse(row, "controller")?,
                    taken: row.get("taken")?,
                    open: row.get("open")?,
                })
            };
            let mut select = connection.prepare_cached(sql)?;
            readable(select.query_map([], count)?).collect()
        });
        counts.await
    }
}

fn is_taken(connection: &Connection, task: &ControllerTask) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM leases WHERE controller = ?1 AND session = ?2)";
    let mut select = connection.prepare_cached(sql)?;
    select.query_row([task.controller.as_str(), &task.session], |row| row.get(0))
}

fn read_lease(row: &Row<'_>) -> rusqlite::Result<Lease> {
    Ok(Lease {
        build: read_key(row.get("build")?),
        controller: parse(row, "controller")?,
        session: row.get("session")?,
        terms: row.get("terms")?,
        taken: parse(row, "taken")?,
        sent: from_json(row, "sent")?,
        failures: row.get("failures")?,
        failure: row.get("failure")?,
        settled: optional(row, "settled")?,
        answer: row.get("answer")?,
    })
}

#[cfg(test)]
mod tests;
