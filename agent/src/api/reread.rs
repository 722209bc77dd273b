//! What is read from files, and read again when they change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

/// A value that is read from files. While they cannot be used, it stays what it was.
#[derive(Debug)]
pub(super) struct Reread<T> {
    paths: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> io::Result<T>,
    kept: Mutex<(Vec<Mark>, Arc<T>)>,
}

/// What is different when a file has changed; nothing for one that is not there.
type Mark = Option<(u64, u64, i64, i64)>;

impl<T> Reread<T> {
    /// Reads the value for the first time.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        read: fn(&[PathBuf]) -> io::Result<T>,
    ) -> io::Result<Self> {
        let marks = marks(&paths);
        let value = Arc::new(read(&paths)?);
        Ok(Self {
            paths,
            read,
            kept: Mutex::new((marks, value)),
        })
    }

    /// The value as it is now.
    pub(super) fn get(&self) -> Arc<T> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = marks(&self.paths);
        if kept.0 != marks {
            // A file that cannot be used is told once, and not read again until it changes.
            kept.0 = marks;
            match (self.read)(&self.paths) {
                Ok(value) => kept.1 = Arc::new(value),
                Err(error) => error!("a file that has changed is not used: {error}"),
            }
        }
        Arc::clone(&kept.1)
    }
}

fn marks(paths: &[PathBuf]) -> Vec<Mark> {
    paths.iter().map(|path| mark(path)).collect()
}

fn mark(path: &Path) -> Mark {
    let known = std::fs::metadata(path).ok()?;
    Some((known.ino(), known.len(), known.mtime(), known.mtime_nsec()))
}
