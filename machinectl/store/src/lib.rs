//! The store of machine images: everything one can do to a volume's directories.
//!
//! The directory is the database. A [`Volume`] looks at machine directories and
//! changes them, each change under the machine's lock and in an order that
//! survives a power cut; [`toolchains::Toolchains`] keeps what guests install.
//! Neither needs the agent to run.

pub mod error;

pub mod subvolumes;

mod lock;

mod view;

mod snapshot;

mod publish;

pub mod ingest;

pub mod stream;

pub mod clean;

mod delete;

pub mod content_manifest;

pub mod send;

pub mod prune;

pub mod doctor;

pub mod init;

pub mod space;

pub mod toolchains;

pub mod btrfs_progs;

pub mod volumes;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::MachineName;

pub use clean::{CleanReport, Step};
pub use delete::{Deletion, delete_plan};
pub use error::{Refusal, RefusalKind, StoreError};
pub use ingest::{Arrival, Intent, Plan, Source};
pub use lock::{Holder, LockRefusal};
pub use snapshot::{Origin, Snapshot, SnapshotRefusal, Taken};
pub use subvolumes::{Change, Subvolume, SubvolumeBackend, Uuid};
pub use view::{ImageView, MachineRefusal, MachineView, RevisionView, SnapshotView};
pub use volumes::{Inventory, Located, VolumeId, Volumes};

use error::IoContext;
use subvolumes::BtrfsBackend;

/// What every fallible operation of the store returns.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// How long an operation waits for a lock that another one holds.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A reason not to open a directory as a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeRefusal {
    /// The directory does not exist.
    #[error("there is no volume `{}`; make one with `buildhost init`", .0.display())]
    NotFound(PathBuf),
    /// The directory is on another file system.
    #[error("`{}` is not on btrfs; make a volume with `buildhost init`", .0.display())]
    NotBtrfs(PathBuf),
}

impl Refusal for VolumeRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound(_) | Self::NotBtrfs(_) => RefusalKind::NoVolume,
        }
    }
}

/// A directory on btrfs that holds machine directories. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volume {
    path: Arc<Path>,
    backend: Arc<dyn SubvolumeBackend>,
    patience: Duration,
}

impl Volume {
    /// Opens a volume.
    ///
    /// # Errors
    /// When the directory is not there or is not on btrfs.
    pub fn open(path: &Path) -> Result<Self> {
        let path = match path.canonicalize() {
            Ok(path) => path,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(VolumeRefusal::NotFound(path.to_owned()).into());
            }
            Err(source) => return Err(source).context("open", path),
        };
        if !subvolumes::is_btrfs(&path).context("look at", &path)? {
            return Err(VolumeRefusal::NotBtrfs(path).into());
        }
        Ok(Self::with_backend(&path, Arc::new(BtrfsBackend)))
    }

    /// A volume over any pool; what tests use with a fake one.
    pub fn with_backend(path: &Path, backend: Arc<dyn SubvolumeBackend>) -> Self {
        Self {
            path: path.into(),
            backend,
            patience: PATIENCE,
        }
    }

    /// The same volume with another limit for waiting for locks.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The volume's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of a machine, there or not.
    pub fn directory(&self, machine: &MachineName) -> PathBuf {
        self.path.join(machine)
    }

    /// The directories whose names are names of machines, sorted.
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

    /// Puts everything that was done so far on the disk.
    pub fn commit(&self) -> Result<()> {
        self.backend
            .commit(&self.path)
            .context("commit the changes of", &self.path)
    }
}
