//! The staging directory of a build: the entries that it has put, until it has ended. Only the build
//! itself reads them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::BuildId;
use config::cache::CachePath;
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tempfile::NamedTempFile;

use crate::journal::{self, Content};

/// The largest number of entries of one build.
const ENTRIES_MAX: usize = 100_000;
/// The file that lists the entries.
const JOURNAL: &str = "journal";

/// The staging directory of a build.
#[derive(Debug)]
pub(crate) struct Staging {
    build: BuildId,
    directory: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<CachePath, Content>,
    /// The size of all entries, and of what arrives.
    bytes: u64,
    journal: Option<File>,
    is_closed: bool,
}

/// The reason for which an entry is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    /// The build has put as many bytes as it may.
    #[error(
        "a build puts at most {0} bytes into this cache; its `mib_max` in the settings says so"
    )]
    Bytes(u64),
    /// It has put as many entries as it may.
    #[error("a build puts at most {ENTRIES_MAX} entries into a cache")]
    Entries,
    /// The build has ended.
    #[error("the build has ended")]
    Closed,
    /// A file failed.
    #[error(transparent)]
    File(#[from] io::Error),
}

/// Space that an entry takes while it arrives. It is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    staging: Arc<Staging>,
    bytes: u64,
}

impl Staging {
    /// Returns the staging directory of a new attempt at a build. Removes that of an earlier one.
    ///
    /// # Errors
    /// The earlier one cannot be removed.
    pub(crate) fn fresh(stagings: &Path, build: BuildId, bytes_max: u64) -> io::Result<Self> {
        let staging = Self::new(stagings, build, bytes_max, State::default());
        staging.remove()?;
        Ok(staging)
    }

    /// Returns the staging directory that an earlier agent has left; an empty one without any.
    ///
    /// # Errors
    /// Its journal cannot be read.
    pub(crate) fn reopen(stagings: &Path, build: BuildId, bytes_max: u64) -> io::Result<Self> {
        let path = stagings.join(build.to_string()).join(JOURNAL);
        let journal = match sys::trusted::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            journal => journal?,
        };
        let entries = journal::parse(&String::from_utf8_lossy(&journal));
        let state = State {
            bytes: entries.values().map(|content| content.bytes).sum(),
            entries,
            ..State::default()
        };
        Ok(Self::new(stagings, build, bytes_max, state))
    }

    fn new(stagings: &Path, build: BuildId, bytes_max: u64, state: State) -> Self {
        Self {
            build,
            directory: stagings.join(build.to_string()),
            bytes_max,
            state: Mutex::new(state),
        }
    }

    /// Returns the build.
    pub(crate) fn build(&self) -> BuildId {
        self.build
    }

    /// Returns the file of an entry, and its content.
    pub(crate) fn find(&self, path: &CachePath) -> Option<(PathBuf, Content)> {
        let content = *self.state.lock().entries.get(path)?;
        Some((self.path_of(content), content))
    }

    /// Returns the path of a content that was put.
    pub(crate) fn path_of(&self, content: Content) -> PathBuf {
        self.directory.join(content.hash.to_string())
    }

    /// Begins an entry: returns space of no size, and a file. Blocks.
    ///
    /// # Errors
    /// The build has put too many entries or has ended, or the file cannot be created.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<(Reservation, NamedTempFile), StagingError> {
        self.state.lock().check()?;
        sys::file::private_directory(&self.directory)?;
        let file = NamedTempFile::new_in(&self.directory)?;
        let staging = Arc::clone(self);
        Ok((Reservation { staging, bytes: 0 }, file))
    }

    /// Adds an entry that has arrived. From then on the build reads it. Blocks.
    ///
    /// # Errors
    /// Those of [`Self::begin`].
    pub(crate) fn commit(
        &self,
        mut space: Reservation,
        file: NamedTempFile,
        path: CachePath,
        content: Content,
    ) -> Result<(), StagingError> {
        let mut state = self.state.lock();
        state.check()?;
        file.persist(self.path_of(content))
            .map_err(|error| error.error)?;
        if state.journal.is_none() {
            state.journal = Some(append(&self.directory.join(JOURNAL))?);
        }
        if let Some(journal) = &mut state.journal {
            // One write, so that an agent that is killed leaves a whole line or none.
            journal.write_all(journal::line(&path, content).as_bytes())?;
        }
        space.bytes = 0;
        // A content that is replaced stays in the directory, and in the share of the build.
        state.entries.insert(path, content);
        Ok(())
    }

    /// Returns all entries. No entry is taken from then on.
    pub(crate) fn close(&self) -> BTreeMap<CachePath, Content> {
        let mut state = self.state.lock();
        state.is_closed = true;
        std::mem::take(&mut state.entries)
    }

    /// Removes the directory with everything in it. Blocks.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

impl State {
    /// Checks that another entry may be put.
    fn check(&self) -> Result<(), StagingError> {
        if self.is_closed {
            return Err(StagingError::Closed);
        }
        if self.entries.len() >= ENTRIES_MAX {
            return Err(StagingError::Entries);
        }
        Ok(())
    }
}

/// Opens or creates a file to append to.
fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::APPEND | OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

impl Reservation {
    /// Takes more space.
    ///
    /// # Errors
    /// The build has put too many bytes.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), StagingError> {
        let mut state = self.staging.state.lock();
        let after = state.bytes.saturating_add(bytes);
        if after > self.staging.bytes_max {
            return Err(StagingError::Bytes(self.staging.bytes_max));
        }
        state.bytes = after;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut state = self.staging.state.lock();
            state.bytes = state.bytes.saturating_sub(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(staging: &Arc<Staging>, path: &str, text: &str) -> Result<(), StagingError> {
        let (mut space, mut file) = staging.begin()?;
        space.grow(text.len() as u64)?;
        file.write_all(text.as_bytes())?;
        let content = Content {
            hash: blake3::hash(text.as_bytes()).into(),
            bytes: text.len() as u64,
        };
        staging.commit(space, file, path.parse().unwrap(), content)
    }

    fn get(staging: &Staging, path: &str) -> Option<String> {
        let (file, _) = staging.find(&path.parse().unwrap())?;
        Some(fs::read_to_string(file).unwrap())
    }

    #[test]
    fn the_next_agent_finds_what_was_put_and_the_next_attempt_does_not() {
        let place = tempfile::tempdir().unwrap();
        let staging = Arc::new(Staging::fresh(place.path(), BuildId(7), 100).unwrap());
        put(&staging, "objects/a", "one").unwrap();
        put(&staging, "objects/a", "two").unwrap();
        put(&staging, "downloads/b c", "two").unwrap();
        drop(staging);
        let staging = Arc::new(Staging::reopen(place.path(), BuildId(7), 100).unwrap());
        assert_eq!(get(&staging, "objects/a").as_deref(), Some("two"));
        put(&staging, "objects/d", "three").unwrap();
        let staging = Arc::new(Staging::reopen(place.path(), BuildId(7), 100).unwrap());
        assert_eq!(get(&staging, "downloads/b c").as_deref(), Some("two"));
        assert_eq!(get(&staging, "objects/d").as_deref(), Some("three"));
        let staging = Arc::new(Staging::fresh(place.path(), BuildId(7), 100).unwrap());
        assert_eq!(get(&staging, "objects/a"), None);
        assert_eq!(place.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_build_puts_no_more_than_its_share_and_nothing_after_its_end() {
        let place = tempfile::tempdir().unwrap();
        let staging = Arc::new(Staging::fresh(place.path(), BuildId(7), 10).unwrap());
        put(&staging, "objects/a", "123456").unwrap();
        let refused = put(&staging, "objects/b", "12345").unwrap_err();
        assert!(matches!(refused, StagingError::Bytes(10)), "{refused}");
        // What was refused takes no space, and what was replaced does.
        put(&staging, "objects/a", "12").unwrap();
        put(&staging, "objects/b", "34").unwrap();
        put(&staging, "objects/b", "5").unwrap_err();
        let (_space, _file) = staging.begin().unwrap();
        assert_eq!(staging.close().len(), 2);
        let refused = put(&staging, "objects/c", "").unwrap_err();
        assert!(matches!(refused, StagingError::Closed), "{refused}");
    }
}
