//! Records of builds that are about to be finished, for the signer of their provenance: clients
//! see such a record only after the provenance is stored.

use std::path::Path;

use config::BuildId;
use config::builds::{Build, State};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::migrations::MIGRATIONS;
use super::rows::{from_json, json, key, read};
use super::{Records, RecordsError, format};

impl Records {
    /// Stores the record that a build will have when it is finished, for [`read_concluded`].
    /// [`Records::save`] of the finished build deletes it.
    pub async fn conclude(&self, build: &Build) -> Result<(), RecordsError> {
        let build = build.clone();
        let store = self.database.write(move |transaction| {
            let sql = "INSERT OR REPLACE INTO concluded (build, record) VALUES (?1, ?2)";
            transaction
                .prepare_cached(sql)?
                .execute(params![key(build.id), json(&build)?])
        });
        store.await.map(drop)
    }
}

/// Deletes the record that a build was about to have, because it has a final one or another
/// attempt.
pub(super) fn forget(transaction: &Transaction<'_>, build: &Build) -> rusqlite::Result<()> {
    if build.state == State::Finished || build.state == State::Queued {
        let sql = "DELETE FROM concluded WHERE build = ?1";
        transaction.prepare_cached(sql)?.execute([key(build.id)])?;
    }
    Ok(())
}

/// Reads the record of a build that is finished or about to be, without an agent: opens the file
/// for reading only. The people who typed are those of the record itself. Returns `None` if
/// there is no such build.
///
/// # Errors
/// The file cannot be read, or has another version than this program.
pub fn read_concluded(path: &Path, id: BuildId) -> Result<Option<Build>, RecordsError> {
    let fault = |source| RecordsError::Database {
        path: path.to_owned(),
        source,
    };
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(fault)?;
    check_format(path, format(&connection).map_err(fault)?)?;
    read_from(&connection, id).map_err(fault)
}

fn check_format(path: &Path, found: usize) -> Result<(), RecordsError> {
    let (path, known) = (path.to_owned(), MIGRATIONS.len());
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(RecordsError::Newer { path, found, known }),
        std::cmp::Ordering::Less => Err(RecordsError::Older { path, found, known }),
    }
}

fn read_from(connection: &Connection, id: BuildId) -> rusqlite::Result<Option<Build>> {
    // Both queries see the same state.
    let snapshot = connection.unchecked_transaction()?;
    let sql = "SELECT * FROM builds WHERE id = ?1";
    let Some(recorded) = snapshot.query_row(sql, [key(id)], read).optional()? else {
        return Ok(None);
    };
    let sql = "SELECT record FROM concluded WHERE build = ?1";
    let concluded: Option<Build> = snapshot
        .query_row(sql, [key(id)], |row| from_json(row, "record"))
        .optional()?;
    Ok(Some(match concluded {
        Some(concluded) => Build {
            typists: recorded.typists,
            saves: recorded.saves,
            cancel_requested: recorded.cancel_requested,
            ..concluded
        },
        None => recorded,
    }))
}

#[cfg(test)]
mod tests {
    use config::builds::{Submitter, Typist};
    use config::task::Outcome;
    use jiff::Timestamp;
    use telemetry::Telemetry;

    use super::*;

    #[tokio::test]
    async fn a_concluded_record_is_hidden_until_the_build_is_finished() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite3");
        let records = Records::open(&path, Telemetry::default()).unwrap();
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let (toolchain, now) = ("default".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let submitted = records.submit(request, toolchain, Submitter::root(), now);
        let mut build = submitted.await.unwrap();
        build.enter(State::Starting, now).unwrap();
        records.save(&mut build).await.unwrap();
        let typist = Typist {
            submitter: Submitter::root(),
            at: now,
        };
        records.add_typist(build.id, typist.clone()).await.unwrap();
        build.enter(State::Running, now).unwrap();
        build.enter(State::Storing, now).unwrap();
        records.save(&mut build).await.unwrap();
        build.enter(State::Finished, now).unwrap();
        build.outcome = Some(Outcome::Success);
        records.conclude(&build).await.unwrap();

        let visible = records.get(build.id).await.unwrap().unwrap();
        assert_eq!((visible.state, visible.outcome), (State::Storing, None));
        let id = build.id;
        let mut expected = build.clone();
        expected.typists = vec![typist];
        let read = || read_concluded(&path, id).unwrap();
        assert_eq!(read(), Some(expected.clone()));
        records.save(&mut build).await.unwrap();
        expected.saves = build.saves;
        assert_eq!(read(), Some(expected.clone()));
        assert_eq!(records.get(id).await.unwrap(), Some(expected));
        assert_eq!(read_concluded(&path, BuildId(9)).unwrap(), None);
    }

    #[test]
    fn a_file_of_another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.sqlite3");
        for (version, expected) in [(1, "older"), (1000, "newer")] {
            let connection = Connection::open(&path).unwrap();
            connection
                .pragma_update(None, "user_version", version)
                .unwrap();
            let error = read_concluded(&path, BuildId(1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
