//! The repository of a machine: a directory that any web server can serve.
//!
//! ```text
//! pool/HASH/hello_1.0-r0_amd64.deb   the packages, which never change
//! generations/7/                     the indexes, the signatures and the state of a generation
//! current -> generations/7           replaced by a rename
//! dists -> current/dists             for apt
//! Packages -> current/Packages       for opkg, with Packages.gz, Packages.asc and Packages.sig
//! key.asc                            the public keys, also in the generation
//! ```
//!
//! A generation is complete on the disk before `current` names it, and its packages before that. Then
//! what nothing needs is removed. A crash leaves the previous generation and files that the next change
//! removes.

mod generation;
mod sweep;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use config::BuildId;
use config::task::Digest;
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use sys::error_report::chain;

use crate::disk::Disk;
use crate::index::{Entry, POOL};
use crate::package::{self, PackageKind};
use crate::retention::Retention;
use crate::signature::{FeedKey, SignError};
use crate::state::{FORMAT, Refused, State};

/// The directory of generations.
const GENERATIONS: &str = "generations";
/// The link to the current generation.
const CURRENT: &str = "current";
/// The file with the state, in the directory of a generation.
const STATE: &str = "state.json";
/// The file with the public keys.
const PUBLIC_KEY: &str = "key.asc";
/// The lock file.
const LOCK: &str = ".lock";
/// The paths below the directory that clients may get, by their first components.
pub const PUBLIC: [&str; 7] = [
    POOL,
    "dists",
    "Packages",
    "Packages.gz",
    "Packages.asc",
    "Packages.sig",
    PUBLIC_KEY,
];

/// A failure to change or to read a repository.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A file cannot be used.
    #[error("cannot use the repository {path}")]
    Io {
        /// The directory of the repository.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The state cannot be read.
    #[error(
        "the state of the repository {path} cannot be used ({reason}); `buildhost feed rebuild` makes it again from the packages"
    )]
    State {
        /// The directory of the repository.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The indexes cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// A package that is to be published.
#[derive(Debug)]
pub struct Addition {
    /// The file.
    pub file: File,
    /// Its name.
    pub name: String,
    /// The kind.
    pub kind: PackageKind,
    /// The hash that the record of its build has.
    pub sha256: Digest,
    /// The build.
    pub build: Option<BuildId>,
}

/// The changes of a publication.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// The generation that is current now.
    pub generation: u64,
    /// The packages that are new.
    pub added: Vec<String>,
    /// The packages that were refused, with the reasons.
    pub refused: Vec<Refused>,
    /// The number of packages that the limits did not keep.
    pub expired: usize,
    /// The packages that a rebuild did not find or that had changed, by their paths.
    pub lost: Vec<String>,
}

/// The repository of a machine in a feed.
#[derive(Debug)]
pub struct Repository {
    directory: PathBuf,
    origin: String,
    retention: Retention,
    disk: Disk,
}

impl Repository {
    /// Returns the repository in a directory, which need not exist. The origin is for people.
    pub fn new(directory: &Path, origin: String, retention: Retention) -> Self {
        Self {
            directory: directory.to_owned(),
            origin,
            retention,
            disk: Disk::default(),
        }
    }

    /// Returns the state; `None` if nothing was published. Blocks.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn state(&self) -> Result<Option<State>, RepositoryError> {
        let path = self.directory.join(CURRENT).join(STATE);
        let text = match sys::trusted::read_text(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.no_state(),
            text => text.map_err(|source| self.io(source))?,
        };
        let state: State = serde_json::from_str(&text).map_err(|error| self.bad_state(&error))?;
        if state.format == FORMAT {
            Ok(Some(state))
        } else {
            Err(self.bad_state(&format!("it has the format {}", state.format)))
        }
    }

    /// Returns `None` for a repository that was never published.
    fn no_state(&self) -> Result<Option<State>, RepositoryError> {
        match self.directory.join(CURRENT).symlink_metadata() {
            Ok(_) => Err(self.bad_state(&"it is missing")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Publishes packages, and applies the limits. Does nothing if nothing changes. Blocks.
    ///
    /// # Errors
    /// The repository cannot be changed or signed. Then clients see the one before.
    pub fn publish(
        &self,
        additions: Vec<Addition>,
        keys: &[FeedKey],
        now: Timestamp,
    ) -> Result<Published, RepositoryError> {
        let _lock = self.lock()?;
        let before = self.state()?;
        let mut state = match before.clone() {
            Some(state) => state,
            None => self.adopt(now)?,
        };
        let mut published = Published::default();
        for addition in additions {
            let (name, build) = (addition.name.clone(), addition.build);
            match self.add(&mut state, addition, now)? {
                Ok(Some(path)) => published.added.push(path),
                Ok(None) => {}
                Err(reason) => {
                    let refused = Refused {
                        file: name,
                        build,
                        reason,
                        at: now,
                    };
                    state.refuse(refused.clone());
                    published.refused.push(refused);
                }
            }
        }
        published.expired = state.apply(&self.retention, now);
        let is_same = before.as_ref() == Some(&state) && !self.needs_signature(&state, keys);
        if is_same {
            published.generation = state.generation;
            self.complete(&state)?;
            return Ok(published);
        }
        published.generation = self.replace(state, keys, now)?;
        Ok(published)
    }

    /// Makes the indexes again from the packages, whose hashes it compares. Blocks.
    ///
    /// # Errors
    /// The repository cannot be changed or signed. Then clients see the one before.
    pub fn rebuild(&self, keys: &[FeedKey], now: Timestamp) -> Result<Published, RepositoryError> {
        let _lock = self.lock()?;
        // A state that cannot be read is the reason for a rebuild.
        let before = self.state().ok().flatten();
        let mut state = before.clone().unwrap_or_else(|| State::new(now));
        let known = std::mem::take(&mut state.entries);
        let mut known: BTreeMap<_, _> = known.into_iter().map(|it| (it.path(), it)).collect();
        let mut published = Published::default();
        let found = sweep::packages(&self.directory).map_err(|source| self.io(source))?;
        for path in found {
            // Without a state, retired packages cannot be told from others; the limits remove them again.
            if before.is_some() && !known.contains_key(&path) {
                continue;
            }
            let known = known.remove(&path);
            match self.read_again(&path, known, now) {
                Ok(entry) => {
                    if let Err(reason) = state.add(entry) {
                        published.lost.push(format!("{path}: {reason}"));
                    }
                }
                Err(reason) => published.lost.push(format!("{path}: {reason}")),
            }
        }
        let missing = known
            .into_keys()
            .map(|path| format!("{path}: the file is missing"));
        published.lost.extend(missing);
        published.expired = state.apply(&self.retention, now);
        state.generation = state.generation.max(self.newest_generation()?);
        published.generation = self.replace(state, keys, now)?;
        Ok(published)
    }

    /// Returns the files of packages that the current indexes name and that are missing. Blocks.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn missing(&self) -> Result<Vec<String>, RepositoryError> {
        let state = self.state()?;
        let paths = state
            .iter()
            .flat_map(|state| state.entries.iter().map(Entry::path));
        Ok(paths
            .filter(|path| !self.directory.join(path).is_file())
            .collect())
    }

    /// Returns true if the indexes were signed by other keys than these.
    pub fn needs_signature(&self, state: &State, keys: &[FeedKey]) -> bool {
        !keys
            .iter()
            .map(FeedKey::fingerprint)
            .eq(state.keys.iter().cloned())
    }

    /// Returns the state of a repository without a current generation: its first publication was cut, or the
    /// link was lost. Its packages are kept.
    fn adopt(&self, now: Timestamp) -> Result<State, RepositoryError> {
        let mut state = State::new(now);
        state.generation = self.newest_generation()?;
        for path in sweep::packages(&self.directory).map_err(|source| self.io(source))? {
            // One that cannot be read is no package of a feed.
            if let Ok(entry) = self.read_again(&path, None, now) {
                let _ = state.add(entry);
            }
        }
        Ok(state)
    }

    /// Adds a package to the state, and its file to the pool. Returns its path if it is new, or the
    /// reason against it.
    fn add(
        &self,
        state: &mut State,
        addition: Addition,
        now: Timestamp,
    ) -> Result<Result<Option<String>, String>, RepositoryError> {
        let Addition {
            file,
            name: _,
            kind,
            sha256,
            build,
        } = addition;
        let (id, control) = match package::read(kind, &file) {
            Ok(package) => package,
            Err(error) if error.is_of_the_host() => return Err(self.io(io::Error::other(error))),
            Err(error) => return Ok(Err(chain(&error))),
        };
        let bytes = file.metadata().map_err(|source| self.io(source))?.len();
        let control = control.to_string();
        let entry = Entry {
            id,
            control,
            bytes,
            sha256,
            build,
            added: now,
        };
        let path = entry.path();
        let sha256 = entry.sha256.clone();
        match state.add(entry) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(None)),
            Err(reason) => return Ok(Err(reason)),
        }
        let copied = self
            .copy(&file, &path, &sha256)
            .map_err(|source| self.io(source))?;
        if !copied {
            state.entries.retain(|it| it.path() != path);
            return Ok(Err(
                "its content is not that which the record of its build has".to_owned(),
            ));
        }
        Ok(Ok(Some(path)))
    }

    /// Copies a package into the pool. Returns false if it does not have the hash.
    fn copy(&self, file: &File, path: &str, sha256: &Digest) -> io::Result<bool> {
        let path = self.directory.join(path);
        let directory = path.parent().unwrap_or(&self.directory);
        self.disk.create_directories(directory)?;
        let copy = self.disk.copy(file, &path)?;
        if sys::file::digest(sys::trusted::open(copy.path())?)? != *sha256 {
            return Ok(false);
        }
        self.disk.name(copy, &path)?;
        self.disk.sync_directory(&self.directory.join(POOL))?;
        Ok(true)
    }

    /// Returns the entry of a package in the pool, or the reason against it.
    fn read_again(
        &self,
        path: &str,
        known: Option<Entry>,
        now: Timestamp,
    ) -> Result<Entry, String> {
        let failed = |error: io::Error| chain(&error);
        let kind = PackageKind::of_file(path).ok_or("its name is not that of a package")?;
        let file = sys::trusted::open(self.directory.join(path)).map_err(failed)?;
        let sha256 = sys::file::digest(&file).map_err(failed)?;
        let (id, control) = package::read(kind, &file).map_err(|error| chain(&error))?;
        let entry = Entry {
            id,
            control: control.to_string(),
            bytes: file.metadata().map_err(failed)?.len(),
            sha256,
            build: known.as_ref().and_then(|it| it.build),
            added: known.map_or(now, |it| it.added),
        };
        if entry.path() == path {
            Ok(entry)
        } else {
            Err("its content has changed".to_owned())
        }
    }

    /// Locks the repository for a change, and removes what a crash has left.
    fn lock(&self) -> Result<File, RepositoryError> {
        let lock = || {
            self.disk.create_directories(&self.directory.join(POOL))?;
            self.disk
                .create_directories(&self.directory.join(GENERATIONS))?;
            let lock = sys::trusted::append(self.directory.join(LOCK))?;
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        };
        lock().map_err(|source| self.io(source))
    }

    fn io(&self, source: io::Error) -> RepositoryError {
        let path = self.directory.clone();
        RepositoryError::Io { path, source }
    }

    fn bad_state(&self, reason: &dyn ToString) -> RepositoryError {
        let (path, reason) = (self.directory.clone(), reason.to_string());
        RepositoryError::State { path, reason }
    }
}

#[cfg(test)]
mod tests;
