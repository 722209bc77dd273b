//! The layout of the state directory.

use std::path::{Path, PathBuf};

use config::task;
use config::{BuildId, CopyTag, ImageKey};

/// The live log in the directory of a build; [`task::LOG`] replaces it at the end.
pub const LIVE_LOG: &str = "log.live";
/// The directory of artifacts in the directory of a build.
pub const ARTIFACTS: &str = "artifacts";

/// The paths below the state directory.
#[derive(Debug, Clone)]
pub struct StatePaths {
    state: PathBuf,
}

impl StatePaths {
    /// Returns the paths below a state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
        }
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The database of builds and schedules.
    pub fn records(&self) -> PathBuf {
        self.state.join("records.sqlite3")
    }

    /// The file that exists while the host is drained.
    pub fn drained(&self) -> PathBuf {
        self.state.join("drained.json")
    }

    /// The directory with a directory for each build.
    pub fn builds(&self) -> PathBuf {
        self.state.join("builds")
    }

    /// The directory of a build: its log, its artifacts, its result.
    pub fn build(&self, id: BuildId) -> PathBuf {
        self.builds().join(id.to_string())
    }

    /// Returns the log of a build: the complete one if the guest has put it, else the
    /// live one.
    pub fn build_log(&self, id: BuildId) -> PathBuf {
        let directory = self.build(id);
        let complete = directory.join(task::LOG);
        if complete.exists() {
            complete
        } else {
            directory.join(LIVE_LOG)
        }
    }

    /// The directory of sources, each named by its SHA-256 hash.
    pub fn sources(&self) -> PathBuf {
        self.state.join("sources")
    }

    /// The directory with the consoles and logs of bootstraps.
    pub fn bootstraps(&self) -> PathBuf {
        self.state.join("bootstraps")
    }

    /// The directory with the console and log of the bootstrap of an image.
    pub fn bootstrap(&self, key: &ImageKey) -> PathBuf {
        let name = format!("{}-{}", key.machine, key.toolchain);
        self.bootstraps().join(name)
    }

    /// The directory with a directory for each debug session.
    pub fn debug_sessions(&self) -> PathBuf {
        self.state.join("attached")
    }

    /// The directory of a debug session: the files that its guest puts and prints.
    pub fn debug_session(&self, tag: CopyTag) -> PathBuf {
        self.debug_sessions().join(tag.to_string())
    }
}
