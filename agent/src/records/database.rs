//! The file of the records and the connections to it: one that writes, and a few that
//! only read, so that who reads waits for nobody who writes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use super::RecordsError;

/// How many read at once; more wait for their turn.
const READERS_MAX: usize = 4;

/// The file, open; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Database {
    path: Arc<Path>,
    writer: Arc<tokio::sync::Mutex<Connection>>,
    readers: Arc<Readers>,
}

/// Connections that are not in use, opened when they are first needed.
#[derive(Debug)]
struct Readers {
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Database {
    /// Goes on with a connection that may write, to the file at `path`.
    pub(super) fn new(path: &Path, writer: Connection) -> Self {
        Self {
            path: path.into(),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            readers: Arc::new(Readers {
                places: Arc::new(Semaphore::new(READERS_MAX)),
                idle: Mutex::default(),
            }),
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A connection of its own that only reads, for long work.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Changes something, wholly or, when `work` fails, not at all; one after the
    /// other, where waiting for the disk holds nobody up.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let mut writer = Arc::clone(&self.writer).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        self.told(done.await)
    }

    /// Looks at what is on the disk: everything whose writing has returned.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let place = Arc::clone(&self.readers.places).acquire_owned().await;
        let database = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Kept until the connection is back.
            let _place = place;
            let idle = database.idle().pop();
            let connection = idle.map_or_else(|| database.reader(), Ok)?;
            let done = work(&connection);
            database.idle().push(connection);
            done
        });
        self.told(done.await)
    }

    /// An error of the database, with the file that it is about.
    pub(super) fn fault(&self, source: rusqlite::Error) -> RecordsError {
        RecordsError::Database {
            path: self.path.to_path_buf(),
            source,
        }
    }

    fn told<T>(
        &self,
        done: Result<rusqlite::Result<T>, tokio::task::JoinError>,
    ) -> Result<T, RecordsError> {
        let done = done.map_err(|_| RecordsError::Gone)?;
        done.map_err(|source| self.fault(source))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        let idle = self.readers.idle.lock();
        idle.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn who_reads_waits_for_nobody_who_writes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let connection = Connection::open(&path).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        connection
            .execute_batch("CREATE TABLE t (n INTEGER)")
            .unwrap();
        let database = Database::new(&path, connection);
        let sum = || {
            let sql = "SELECT coalesce(sum(n), 0) FROM t";
            database.read(move |connection| connection.query_row(sql, [], |row| row.get(0)))
        };
        let (begun, mut writes) = tokio::sync::oneshot::channel();
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let write = database.write(move |transaction| {
            transaction.execute("INSERT INTO t VALUES (1)", [])?;
            let _ = begun.send(());
            let _ = may_go_on.recv();
            Ok(())
        });
        let reading = async {
            (&mut writes).await.unwrap();
            let before: Vec<i64> = futures_util::future::join_all((0..20).map(|_| sum()))
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
            assert_eq!(before, [0; 20]);
            go_on.send(()).unwrap();
        };
        let (written, ()) = tokio::join!(write, reading);
        written.unwrap();
        assert_eq!(sum().await.unwrap(), 1i64);
        assert!(database.idle().len() <= READERS_MAX);
    }

    #[tokio::test]
    async fn who_reads_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let database = Database::new(&path, Connection::open(&path).unwrap());
        let sql = "CREATE TABLE t (n INTEGER)";
        let done = database.read(move |connection| connection.execute(sql, []));
        assert!(matches!(done.await, Err(RecordsError::Database { .. })));
    }
}
