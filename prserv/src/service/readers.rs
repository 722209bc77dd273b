//! The connections on which exports read. They are kept between exports, because opening one takes
//! longer than reading the rows of a version.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::store::{Database, OpenMode, Store, StoreError};

/// The connections that are kept. More are opened while more exports read at once.
const IDLE_MAX: usize = 4;

/// A pool of connections for reading.
pub(super) struct Readers {
    db: Database,
    /// The connections that nothing uses; `None` when the pool is closed.
    idle: Mutex<Option<Vec<Box<dyn Store>>>>,
}

impl Readers {
    /// Creates a pool without connections.
    pub(super) fn new(db: Database) -> Self {
        Self {
            db,
            idle: Mutex::new(Some(Vec::new())),
        }
    }

    /// Reads on a connection, which blocks. A new one is tried if a kept one has failed, because it
    /// may have been lost.
    pub(super) fn read<T>(
        &self,
        read: impl Fn(&mut dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let kept = self.idle().as_mut().and_then(Vec::pop);
        if let Some(mut store) = kept
            && let Ok(result) = read(&mut *store)
        {
            self.keep(store);
            return Ok(result);
        }
        let mut store = self.db.open(OpenMode::Read)?;
        let result = read(&mut *store)?;
        self.keep(store);
        Ok(result)
    }

    /// Closes the kept connections, and those in use when they are no longer used. SQLite deletes
    /// the write-ahead log with the last connection to a file.
    pub(super) fn close(&self) {
        let idle = self.idle().take();
        drop_elsewhere(idle);
    }

    fn keep(&self, store: Box<dyn Store>) {
        if let Some(idle) = self.idle().as_mut().filter(|idle| idle.len() < IDLE_MAX) {
            idle.push(store);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Box<dyn Store>>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.close();
    }
}

/// Closes connections. That of PostgreSQL cannot be closed on a thread that runs async tasks.
fn drop_elsewhere(idle: Option<Vec<Box<dyn Store>>>) {
    if idle.as_ref().is_some_and(|idle| !idle.is_empty()) {
        let _ = thread::spawn(move || drop(idle)).join();
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Readers")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Filter, Sqlite};

    fn count(store: &mut dyn Store) -> Result<usize, StoreError> {
        Ok(store.rows(&Filter::default())?.len())
    }

    fn kept(readers: &Readers) -> Option<usize> {
        readers.idle().as_ref().map(Vec::len)
    }

    #[test]
    fn a_connection_is_kept_until_the_pool_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prserv.sqlite3");
        drop(Sqlite::open(&path).unwrap());
        let readers = Readers::new(Database::from(&path));
        for _ in 0..3 {
            assert_eq!(readers.read(count).unwrap(), 0);
            assert_eq!(kept(&readers), Some(1));
        }
        readers.close();
        assert_eq!(readers.read(count).unwrap(), 0);
        assert_eq!(kept(&readers), None);
    }

    #[test]
    fn a_kept_connection_that_fails_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("prserv.sqlite3");
        drop(Sqlite::open(&path).unwrap());
        let readers = Readers::new(Database::from(&path));
        readers.read(count).unwrap();
        let first = std::cell::Cell::new(true);
        let fail_once = |store: &mut dyn Store| {
            if first.take() {
                return Err(StoreError::Missing { path: path.clone() });
            }
            count(store)
        };
        assert_eq!(readers.read(fail_once).unwrap(), 0);
        assert_eq!(kept(&readers), Some(1));
    }
}
