//! The database file and its connections: one writer, and a few readers that do not block on
//! the writer.

use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::Semaphore;

use super::RecordsError;

/// The maximum number of concurrent readers; more wait.
const READERS_MAX: usize = 4;

/// The open database. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Database {
    path: Arc<Path>,
    writer: Arc<tokio::sync::Mutex<Connection>>,
    readers: Arc<Readers>,
}

/// The connections of readers, opened on demand.
#[derive(Debug)]
struct Readers {
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Database {
    /// Returns the database at `path` with this connection as the writer.
    pub(super) fn new(path: &Path, writer: Connection) -> Self {
        Self {
            path: path.into(),
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            readers: Arc::new(Readers {
                permits: Arc::new(Semaphore::new(READERS_MAX)),
                idle: Mutex::default(),
            }),
        }
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens another connection that only reads, for long queries.
    pub(super) fn reader(&self) -> rusqlite::Result<Connection> {
        Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Runs a transaction on a blocking thread. It is rolled back if `work` fails. Writers
    /// run one after the other.
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
        self.result(done.await)
    }

    /// Runs a query on a blocking thread. It sees every transaction that has returned.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, RecordsError> {
        let permit = Arc::clone(&self.readers.permits).acquire_owned().await;
        let database = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            // Held until the connection is idle again.
            let _permit = permit;
            let idle = database.idle().pop();
            let connection = idle.map_or_else(|| database.reader(), Ok)?;
            let done = work(&connection);
            database.idle().push(connection);
            done
        });
        self.result(done.await)
    }

    /// Returns an error of the database with its path.
    pub(super) fn fault(&self, source: rusqlite::Error) -> RecordsError {
        RecordsError::Database {
            path: self.path.to_path_buf(),
            source,
        }
    }

    fn result<T>(
        &self,
        done: Result<rusqlite::Result<T>, tokio::task::JoinError>,
    ) -> Result<T, RecordsError> {
        let done = done.map_err(|_| RecordsError::Gone)?;
        done.map_err(|source| self.fault(source))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.readers.idle.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn reads_do_not_block_on_the_writer() {
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
    async fn a_reader_cannot_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("r");
        let database = Database::new(&path, Connection::open(&path).unwrap());
        let sql = "CREATE TABLE t (n INTEGER)";
        let done = database.read(move |connection| connection.execute(sql, []));
        assert!(matches!(done.await, Err(RecordsError::Database { .. })));
    }
}
