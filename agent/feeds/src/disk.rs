//! Changes of the directory of a repository. Each is on the disk when its call returns, except new
//! entries of directories, which [`Disk::sync_directory`] commits. Everybody may read what is made.

#[cfg(test)]
use std::cell::Cell;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use tempfile::{Builder, NamedTempFile};

/// The beginning of the names of files that are not complete.
pub(crate) const INCOMPLETE: &str = ".new-";

const DIRECTORY: u32 = 0o755;
const FILE: u32 = 0o644;

/// The disk, which in tests fails after a number of changes as if the agent had been killed.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) fuse: Cell<Option<u32>>,
}

impl Disk {
    /// Creates a directory and its parents.
    pub(crate) fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY)
            .create(path)
    }

    /// Creates a file that was changed at `changed`.
    pub(crate) fn put(&self, path: &Path, content: &[u8], changed: SystemTime) -> io::Result<()> {
        self.burn()?;
        let mut file = File::create_new(path)?;
        // A crash here leaves a part of the file.
        self.burn()?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(FILE))?;
        file.set_modified(changed)?;
        file.sync_all()
    }

    /// Copies a file beside a path, from its beginning. The result is without its name yet.
    pub(crate) fn copy(&self, from: &File, path: &Path) -> io::Result<NamedTempFile> {
        self.burn()?;
        let directory = path.parent().unwrap_or(path);
        let mut copy = Builder::new().prefix(INCOMPLETE).tempfile_in(directory)?;
        let mut from = from;
        from.seek(SeekFrom::Start(0))?;
        io::copy(&mut from, copy.as_file_mut())?;
        copy.as_file()
            .set_permissions(Permissions::from_mode(FILE))?;
        copy.as_file().sync_all()?;
        Ok(copy)
    }

    /// Gives a copy its name.
    pub(crate) fn name(&self, copy: NamedTempFile, path: &Path) -> io::Result<()> {
        self.burn()?;
        copy.persist(path)?;
        self.sync_directory(path.parent().unwrap_or(path))
    }

    /// Gives a file another name.
    pub(crate) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.burn()?;
        fs::hard_link(from, to)
    }

    /// Makes a symbolic link, or replaces it in one step.
    pub(crate) fn switch(&self, link: &Path, target: &str) -> io::Result<()> {
        self.burn()?;
        let directory = link.parent().unwrap_or(link);
        let name = link.file_name().and_then(|name| name.to_str());
        let new = directory.join(format!("{INCOMPLETE}{}", name.unwrap_or_default()));
        remove(fs::remove_file(&new))?;
        symlink(target, &new)?;
        self.burn()?;
        fs::rename(&new, link)?;
        self.sync_directory(directory)
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        remove(fs::remove_file(path))
    }

    /// Removes a directory with everything in it, if it is there.
    pub(crate) fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.burn()?;
        remove(fs::remove_dir_all(path))
    }

    /// Commits the entries of a directory.
    #[expect(clippy::unused_self, reason = "all changes go through the disk")]
    pub(crate) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        sys::trusted::open(path)?.sync_all()
    }

    #[cfg(test)]
    fn burn(&self) -> io::Result<()> {
        match self.fuse.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("killed")),
            Some(left) => {
                self.fuse.set(Some(left - 1));
                Ok(())
            }
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "it fails in tests only"
    )]
    fn burn(&self) -> io::Result<()> {
        Ok(())
    }
}

fn remove(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
