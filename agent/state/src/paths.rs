//! The layout of the state directory.

use std::io;
use std::path::{Path, PathBuf};

use config::task;
use config::{BuildId, ControllerName, CopyTag, ImageKey};

/// The live log in the directory of a build; at the end it and [`task::LOG`] become one.
pub const LIVE_LOG: &str = "log.live";
/// The times at which the parts of a log arrived, in the directory of a build.
pub const LOG_TIMES: &str = "log.times";
/// The output of the guest's console, in the directory of a build.
pub const CONSOLE: &str = "console";
/// The directory of artifacts in the directory of a build.
pub const ARTIFACTS: &str = "artifacts";

/// The manifest of the task that a controller gave, byte for byte, in the directory of a build.
pub const GIVEN_TASK: &str = "given.manifest";

/// The prefix of the directories of auxiliary guests, in the directory of a build or an attempt.
pub const AUXILIARY: &str = "auxiliary-";

/// Returns the directory of an auxiliary guest, with its environment and the output of its console,
/// in the directory of a build or an attempt.
pub fn auxiliary_directory(build: &Path, number: u8) -> PathBuf {
    build.join(format!("{AUXILIARY}{number}"))
}

/// The prefix of the directories with the logs of earlier attempts.
const ATTEMPT: &str = "attempt-";

/// Returns the directory with the log of an earlier attempt, in the directory of a build.
pub fn attempt_directory(build: &Path, attempt: u32) -> PathBuf {
    build.join(format!("{ATTEMPT}{attempt}"))
}

/// Returns the earlier attempts whose logs are in the directory of a build, in order.
///
/// # Errors
/// The directory cannot be read.
pub fn attempts(build: &Path) -> io::Result<Vec<u32>> {
    let mut attempts = Vec::new();
    for path in sys::file::entries(build)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix(ATTEMPT));
        let number = number.and_then(|number| number.parse().ok());
        attempts.extend(number.filter(|number| attempt_directory(build, *number) == path));
    }
    attempts.sort_unstable();
    Ok(attempts)
}

/// Returns the log in the directory of a build or an attempt: the one that the guest has put,
/// unless the live one is longer.
pub fn log_in(directory: &Path) -> PathBuf {
    let (put, live) = (directory.join(task::LOG), directory.join(LIVE_LOG));
    let size = |path: &Path| path.symlink_metadata().ok().map(|it| it.len());
    if size(&put).is_some() && size(&put) >= size(&live) {
        put
    } else {
        live
    }
}

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

    /// The database of layers, releases and projects.
    pub fn layers(&self) -> PathBuf {
        self.state.join("layers.sqlite3")
    }

    /// The directory of the mirrors of git repositories.
    pub fn mirrors(&self) -> PathBuf {
        self.state.join("mirrors")
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

    /// Returns the log of a build: see [`log_in`].
    pub fn build_log(&self, id: BuildId) -> PathBuf {
        log_in(&self.build(id))
    }

    /// The manifest of the task that a controller gave for a build: see [`GIVEN_TASK`].
    pub fn given_task(&self, id: BuildId) -> PathBuf {
        self.build(id).join(GIVEN_TASK)
    }

    /// The key of this host for a farm.
    pub fn controller_key(&self, name: &ControllerName) -> PathBuf {
        self.state.join("controllers").join(format!("{name}.key"))
    }

    /// The directory of sources, each named by its SHA-256 hash.
    pub fn sources(&self) -> PathBuf {
        self.state.join("sources")
    }

    /// The directory with a directory for each cache between builds.
    pub fn caches(&self) -> PathBuf {
        self.state.join("caches")
    }

    /// The directory of the secrets.
    pub fn secrets(&self) -> PathBuf {
        self.state.join("secrets")
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
