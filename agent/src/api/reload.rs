//! Values that are read from files and reloaded when the files change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use sys::blocking::blocking;
use tracing::error;

/// A value read from files. If a changed file is unusable, the previous value stays.
#[derive(Debug)]
pub(super) struct Reloadable<T> {
    paths: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> io::Result<T>,
    loaded: Mutex<Loaded<T>>,
}

#[derive(Debug)]
struct Loaded<T> {
    /// The stamps of the files before the last attempt to read them.
    stamps: Vec<Option<Stamp>>,
    value: Arc<T>,
}

/// The inode, size and modification time of a file, one of which differs after a change.
type Stamp = (u64, u64, i64, i64);

impl<T: Send + Sync + 'static> Reloadable<T> {
    /// Reads the value for the first time, which blocks.
    pub(super) fn new(
        paths: Vec<PathBuf>,
        read: fn(&[PathBuf]) -> io::Result<T>,
    ) -> io::Result<Self> {
        let stamps = stamps(&paths);
        let value = Arc::new(read(&paths)?);
        Ok(Self {
            paths,
            read,
            loaded: Mutex::new(Loaded { stamps, value }),
        })
    }

    /// Returns the value, after a reload if a file has changed.
    pub(super) async fn get(self: &Arc<Self>) -> Arc<T> {
        let this = Arc::clone(self);
        blocking(move || this.reload()).await
    }

    fn reload(&self) -> Arc<T> {
        let mut loaded = self.loaded.lock();
        let stamps = stamps(&self.paths);
        if loaded.stamps != stamps {
            // An unusable file is reported once and not read again until it changes.
            loaded.stamps = stamps;
            match (self.read)(&self.paths) {
                Ok(value) => loaded.value = Arc::new(value),
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    error!(
                        error,
                        "cannot use a changed file; its previous content stays"
                    );
                }
            }
        }
        Arc::clone(&loaded.value)
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    paths.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}
