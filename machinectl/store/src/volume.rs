//! A volume: a directory on btrfs that holds machine directories.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::MachineName;
use config::layout::Entry;

use crate::init;
use crate::{Refusal, RefusalKind, Result, SubvolumeBackend};
use btrfs::error::IoContext;
use btrfs::subvolumes::{self, BtrfsBackend};

/// The default time limit for acquiring a lock.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The default time after which what has arrived of a slow transfer is kept. A transfer that is
/// killed loses as much.
pub const PART_DURATION: Duration = Duration::from_secs(20);

/// A reason not to open a directory as a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeRefusal {
    /// The directory does not exist.
    #[error("there is no volume `{path}`; `buildhost init {path}` makes one", path = .0.display())]
    NotFound(PathBuf),
    /// The directory is on another file system.
    #[error("`{}` is not on btrfs; `buildhost init DIRECTORY` makes a volume", .0.display())]
    NotBtrfs(PathBuf),
    /// The file beside the directory, which `buildhost init` has made, is not mounted at it.
    #[error("the volume `{path}` is not mounted; `buildhost init {path}` mounts `{file}`", path = .0.display(), file = .1.display())]
    NotMounted(PathBuf, PathBuf),
}

impl Refusal for VolumeRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound(_) | Self::NotBtrfs(_) | Self::NotMounted(..) => RefusalKind::NoVolume,
        }
    }
}

/// A directory on btrfs that holds machine directories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volume {
    path: Arc<Path>,
    pub(crate) backend: Arc<dyn SubvolumeBackend>,
    pub(crate) lock_timeout: Duration,
    pub(crate) part_duration: Duration,
}

impl Volume {
    /// Opens a volume.
    ///
    /// # Errors
    /// The directory does not exist, is not on btrfs, or its file is not mounted.
    pub fn open(path: &Path) -> Result<Self> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeRefusal::NotFound(path.to_owned()).into());
            }
            Err(source) => return Err(source).context("open", path),
        };
        if !subvolumes::is_btrfs(&path).context("inspect", &path)? {
            let file = init::image_file(&path);
            return Err(if file.is_file() {
                VolumeRefusal::NotMounted(path, file).into()
            } else {
                VolumeRefusal::NotBtrfs(path).into()
            });
        }
        Ok(Self::with_backend(&path, Arc::new(BtrfsBackend)))
    }

    /// Returns a volume that uses a backend, such as the fake one of tests. The path must be
    /// canonical.
    pub fn with_backend(path: &Path, backend: Arc<dyn SubvolumeBackend>) -> Self {
        Self {
            path: path.into(),
            backend,
            lock_timeout: LOCK_TIMEOUT,
            part_duration: PART_DURATION,
        }
    }

    /// Sets the time limit for acquiring locks; [`LOCK_TIMEOUT`] by default.
    #[must_use]
    pub fn with_lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets the time after which what has arrived of a transfer is kept; [`PART_DURATION`] by
    /// default.
    #[must_use]
    pub fn with_part_duration(mut self, duration: Duration) -> Self {
        self.part_duration = duration;
        self
    }

    /// Returns the volume's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a machine's directory, which need not exist.
    pub fn directory(&self, machine: &MachineName) -> PathBuf {
        self.path.join(machine)
    }

    /// Returns the path of an entry of a machine's directory, which need not exist.
    pub fn entry(&self, machine: &MachineName, entry: &Entry) -> PathBuf {
        self.directory(machine).join(entry.name(machine))
    }

    /// Returns the names of all machine directories, sorted.
    pub fn machines(&self) -> Result<Vec<MachineName>> {
        let mut machines = Vec::new();
        for entry in self.path.read_dir().context("list", &self.path)? {
            let entry = entry.context("list", &self.path)?;
            let name = entry.file_name();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if let (true, Some(Ok(machine))) = (is_directory, name.to_str().map(str::parse)) {
                machines.push(machine);
            }
        }
        machines.sort();
        Ok(machines)
    }

    /// Commits all changes to the disk.
    pub fn commit(&self) -> Result<()> {
        self.backend
            .commit(&self.path)
            .context("commit the changes of", &self.path)
    }
}
