//! The files of sources on the disk of a coordinator, each under the hash of its content.
//!
//! This is all that a coordinator needs of a store for sources: put, get and remove by hash.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use config::task::Digest;
use futures_util::stream::{Stream, StreamExt};
use sys::blocking::blocking;
use sys::file::Hasher;
use tempfile::NamedTempFile;

/// A failure to store a source. Nothing is stored then.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It has another hash.
    #[error("the content has the hash {found}, not {wanted}; nothing was stored")]
    Wrong {
        /// The hash that it should have.
        wanted: Digest,
        /// The hash of what came.
        found: Digest,
    },
    /// It is too large.
    #[error("a source has at most {0} bytes; `sources.mib_max` of the coordinator permits more")]
    TooLarge(u64),
    /// It did not come whole.
    #[error("the content ended early: {0}; nothing was stored")]
    Cut(String),
    /// There is no room for it.
    #[error("the disk with {} is full; nothing was stored", .0.display())]
    Full(PathBuf),
    /// The disk fails.
    #[error("cannot use the directory {} of sources", path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

/// A source that has arrived and has the right hash, but not its name yet.
#[derive(Debug)]
pub(super) struct Arrived {
    file: NamedTempFile,
    digest: Digest,
}

/// The directory of a coordinator's sources.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    directory: PathBuf,
    bytes_max: u64,
}

impl Shelf {
    /// Opens the directory, which is created if necessary. What a crash has left half written is deleted.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub(super) async fn open(directory: PathBuf, bytes_max: u64) -> Result<Self, PutError> {
        let shelf = Self {
            directory,
            bytes_max,
        };
        let directory = shelf.directory.clone();
        let opened = blocking(move || {
            sys::file::private_directory(&directory)?;
            for path in sys::file::entries(&directory)? {
                if digest_of(&path).is_none() && path.is_file() {
                    std::fs::remove_file(path)?;
                }
            }
            Ok(())
        });
        opened.await.map_err(|error| shelf.failed(error))?;
        Ok(shelf)
    }

    /// Checks that there is room for a source of some size.
    ///
    /// # Errors
    /// There is not enough.
    pub(super) async fn check_room(&self, bytes: u64) -> Result<(), PutError> {
        if bytes > self.bytes_max {
            return Err(PutError::TooLarge(self.bytes_max));
        }
        let directory = self.directory.clone();
        let free = blocking(move || {
            let space = rustix::fs::statvfs(&directory)?;
            Ok(space.f_bavail.saturating_mul(space.f_frsize))
        });
        match free.await {
            Ok(free) if free < bytes => Err(PutError::Full(self.directory.clone())),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Takes the content of a source, and compares its hash.
    ///
    /// # Errors
    /// It is not the source, or cannot be stored.
    pub(super) async fn receive<E: std::fmt::Display>(
        &self,
        digest: Digest,
        content: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Arrived, PutError> {
        let directory = self.directory.clone();
        let file = blocking(move || NamedTempFile::new_in(directory)).await;
        let mut file = file.map_err(|error| self.failed(error))?;
        let (mut hasher, mut bytes) = (Hasher::default(), 0);
        let mut content = std::pin::pin!(content);
        while let Some(part) = content.next().await {
            let part = part.map_err(|error| PutError::Cut(error.to_string()))?;
            bytes += part.len() as u64;
            if bytes > self.bytes_max {
                return Err(PutError::TooLarge(self.bytes_max));
            }
            hasher.update(&part);
            let written = blocking(move || file.write_all(&part).map(|()| file)).await;
            file = written.map_err(|error| self.failed(error))?;
        }
        let found = hasher.finish();
        if found != digest {
            let wanted = digest;
            return Err(PutError::Wrong { wanted, found });
        }
        Ok(Arrived { file, digest })
    }

    /// Gives a source that has arrived its name, durably.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn publish(&self, arrived: Arrived) -> Result<(), PutError> {
        let path = self.path(&arrived.digest);
        let published = blocking(move || sys::file::publish(arrived.file, &path)).await;
        published.map_err(|error| self.failed(error))
    }

    /// Opens a source. Returns it with its size; `None` if it is not there.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn get(&self, digest: &Digest) -> Result<Option<(File, u64)>, PutError> {
        let path = self.path(digest);
        let opened = blocking(move || {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let bytes = file.metadata()?.len();
            Ok(Some((file, bytes)))
        });
        opened.await.map_err(|error| self.failed(error))
    }

    /// Compares a file with its hash. Returns the file at its beginning, and true if it is the source.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn verify(
        &self,
        mut file: File,
        digest: &Digest,
    ) -> Result<(File, bool), PutError> {
        let wanted = digest.clone();
        let verified = blocking(move || {
            let found = sys::file::digest(&file)?;
            file.rewind()?;
            Ok((file, found == wanted))
        });
        verified.await.map_err(|error| self.failed(error))
    }

    /// Deletes a source, if it is there.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn remove(&self, digest: &Digest) -> Result<(), PutError> {
        let path = self.path(digest);
        let removed = blocking(move || match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        });
        removed.await.map_err(|error| self.failed(error))
    }

    /// Returns the sources that are there.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn list(&self) -> Result<Vec<Digest>, PutError> {
        let directory = self.directory.clone();
        let entries = blocking(move || sys::file::entries(&directory)).await;
        let entries = entries.map_err(|error| self.failed(error))?;
        Ok(entries.iter().filter_map(|path| digest_of(path)).collect())
    }

    /// Returns the size of all sources together, in bytes.
    ///
    /// # Errors
    /// The disk fails.
    pub(super) async fn bytes(&self) -> Result<u64, PutError> {
        let directory = self.directory.clone();
        let sizes = blocking(move || {
            let entries = sys::file::entries(&directory)?;
            let sources = entries.iter().filter(|path| digest_of(path).is_some());
            // One that is deleted meanwhile has no size.
            let sizes = sources.filter_map(|path| Some(path.metadata().ok()?.len()));
            Ok(sizes.sum())
        });
        sizes.await.map_err(|error| self.failed(error))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.as_str())
    }

    fn failed(&self, source: io::Error) -> PutError {
        let path = self.directory.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => PutError::Full(path),
            _ => PutError::Disk { path, source },
        }
    }
}

/// Checks that a directory of sources can be written to, and has room for the largest source. One that does not
/// exist is left so; the nearest directory above it is checked then.
///
/// # Errors
/// It cannot be used.
pub(super) async fn check(directory: PathBuf, bytes_max: u64) -> Result<(), PutError> {
    let shelf = Shelf {
        directory,
        bytes_max,
    };
    let path = shelf.directory.clone();
    let found = blocking(move || {
        let existing = path.ancestors().find(|it| it.exists()).unwrap_or(&path);
        // The file has no name, so that a coordinator that runs does not see it.
        tempfile::tempfile_in(existing)?;
        Ok(existing.to_owned())
    });
    let directory = found.await.map_err(|error| shelf.failed(error))?;
    Shelf { directory, ..shelf }.check_room(bytes_max).await
}

/// Returns the hash that a file is named by. Other files in the directory are not sources.
fn digest_of(path: &Path) -> Option<Digest> {
    path.file_name()?.to_str()?.parse().ok()
}
