//! The operations on subvolumes and names that all others consist of.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};

use super::{Change, Subvolume, Uuid};

/// The operations that change a volume.
///
/// Each of them is atomic: a crash may come between two calls but not inside one. Changes may
/// be lost before [`SubvolumeBackend::commit`].
pub trait SubvolumeBackend: Debug + Send + Sync {
    /// Returns the properties of a subvolume; `None` if the path is not one. Does not follow
    /// a symbolic link.
    fn info(&self, path: &Path) -> io::Result<Option<Subvolume>>;

    /// Returns all subvolumes of the file system with this UUID, their own or received.
    fn find(&self, path: &Path, identity: Uuid) -> io::Result<Vec<Subvolume>>;

    /// Returns the paths of the subvolumes in a subvolume, relative to it. Neither a snapshot nor
    /// a stream includes them.
    fn inner(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Returns the one of these subvolumes that is mounted by default, which btrfs does not
    /// delete.
    fn find_default(&self, subvolumes: &[PathBuf]) -> io::Result<Option<PathBuf>>;

    /// Creates an empty writable subvolume.
    fn create(&self, path: &Path) -> io::Result<()>;

    /// Takes a writable snapshot.
    fn snapshot(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Takes a read-only snapshot.
    fn snapshot_read_only(&self, source: &Path, target: &Path) -> io::Result<()>;

    /// Deletes a subvolume, read-only or not, and all subvolumes in it. Fails for a path that
    /// is not a subvolume.
    fn delete(&self, path: &Path) -> io::Result<Change>;

    /// Makes a subvolume read-only.
    fn make_read_only(&self, path: &Path) -> io::Result<()>;

    /// Makes a subvolume writable that is marked as incomplete. The parent of a stream must never
    /// change.
    fn make_writable(&self, path: &Path) -> io::Result<()>;

    /// Returns the transaction of the last change of a file; `None` if the backend does not know
    /// it.
    fn last_change(&self, file: &Path) -> io::Result<Option<u64>>;

    /// Commits all changes to the disk.
    fn commit(&self, path: &Path) -> io::Result<()>;

    /// Creates a symbolic link.
    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()>;

    /// Renames an entry. Replaces a file or a symbolic link at the new path.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Exchanges two entries in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;

    /// Removes a file or a symbolic link.
    fn unlink(&self, path: &Path) -> io::Result<Change>;

    /// Creates a directory.
    fn create_directory(&self, path: &Path) -> io::Result<Change>;

    /// Removes an empty directory.
    fn remove_directory(&self, path: &Path) -> io::Result<Change>;

    /// Writes a small file, in place of an existing one. After a crash it is whole or missing, and
    /// nothing else is left.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;
}
