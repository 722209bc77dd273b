//! The few operations on subvolumes and names that the store is made of: on btrfs
//! ([`BtrfsBackend`]), and on plain directories for tests (`FakeBackend`, by the feature
//! `fake`). One contract suite holds both.

mod btrfs;

#[cfg(any(test, feature = "fake"))]
mod fake;

mod names;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use std::time::SystemTime;

pub use btrfs::{BtrfsBackend, is_btrfs};
#[cfg(any(test, feature = "fake"))]
pub use fake::FakeBackend;
pub use uuid::Uuid;

use crate::{Refusal, RefusalKind};

/// The refusal to replace or delete an entry that should be a subvolume and is not.
#[derive(Debug, thiserror::Error)]
#[error("`{}` exists but is not a subvolume; move it away", .0.display())]
pub struct NotSubvolume(pub PathBuf);

impl Refusal for NotSubvolume {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Invalid
    }
}

/// Whether an operation changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was so already.
    Unchanged,
    /// It was done.
    Changed,
}

/// What btrfs knows of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subvolume {
    /// Its own identity.
    pub uuid: Uuid,
    /// What it is a snapshot of.
    pub parent_uuid: Option<Uuid>,
    /// What it was received from; only a complete receive sets it.
    pub received_uuid: Option<Uuid>,
    /// The sender's transaction of what was received, else its own last one:
    /// together with the identity it names one content.
    pub transaction: u64,
    /// Whether it can no longer be written to.
    pub read_only: bool,
    /// When it was made.
    pub created: SystemTime,
}

impl Subvolume {
    /// The identity under which an incremental stream asks for it.
    pub fn stream_uuid(&self) -> Uuid {
        self.received_uuid.unwrap_or(self.uuid)
    }

    pub(crate) fn has_identity(&self, identity: Uuid) -> bool {
        self.uuid == identity || self.received_uuid == Some(identity)
    }
}

/// What the store does to a disk. Every call is one step: a crash may come between
/// any two, never inside one, except that nothing lasts before [`SubvolumeBackend::commit`].
pub trait SubvolumeBackend: Debug + Send + Sync {
    /// What is known of a subvolume; `None` when the path is not one. A symbolic
    /// link is not followed.
    fn info(&self, path: &Path) -> io::Result<Option<Subvolume>>;

    /// Every subvolume of the file system with this identity, its own or received.
    fn find(&self, path: &Path, identity: Uuid) -> io::Result<Vec<Subvolume>>;

    /// Makes an empty writable subvolume.
    fn create(&self, path: &Path) -> io::Result<()>;

    /// Makes a writable snapshot.
    fn snapshot(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Makes a read-only snapshot.
    fn freeze(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Deletes a subvolume with all subvolumes in it, read-only or not. What is
    /// not a subvolume is refused and left as it is.
    fn delete(&self, path: &Path) -> io::Result<Change>;

    /// Makes a subvolume read-only. There is no way back: see the trait's file.
    fn seal(&self, path: &Path) -> io::Result<()>;

    /// Puts everything that was done on the disk.
    fn commit(&self, path: &Path) -> io::Result<()>;

    /// Makes a symbolic link.
    fn link(&self, target: &Path, path: &Path) -> io::Result<()>;

    /// Renames, replacing what is there when that is a file or a link.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Lets two names change places in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;

    /// Removes a file or a link.
    fn unlink(&self, path: &Path) -> io::Result<Change>;

    /// Makes a directory.
    fn make_directory(&self, path: &Path) -> io::Result<Change>;

    /// Removes a directory that is empty.
    fn remove_directory(&self, path: &Path) -> io::Result<Change>;

    /// Puts a small file in place, whole.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
}
