//! A backend over plain directories for tests without btrfs. It behaves like the real one and
//! can fail after a given number of changes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};
use sys::file;

use super::names::{exchange, unchanged_if_exists, unchanged_if_missing};
use super::{Change, Subvolume, SubvolumeBackend, Uuid};

/// A backend whose subvolumes are plain directories, identified by their inodes.
#[derive(Debug, Default)]
pub struct FakeBackend {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subvolumes: BTreeMap<u64, Subvolume>,
    created: u128,
    /// The number of changes of content, which stands for the transaction.
    transaction: u64,
    fuse: Option<usize>,
    fault: Option<String>,
}

impl State {
    /// Counts a change; fails once the fuse is used up.
    fn count_change(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the fuse is used up")),
            Some(remaining) => {
                *remaining -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Option<(u64, Subvolume)>> {
        match fs::symlink_metadata(path) {
            Ok(data) => {
                let inode = data.ino();
                Ok(self.subvolumes.get(&inode).map(|it| (inode, *it)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn add(&mut self, path: &Path, parent: Option<Uuid>, read_only: bool) -> io::Result<()> {
        self.created += 1;
        self.transaction += 1;
        let subvolume = Subvolume {
            uuid: Uuid::from_u128(self.created),
            parent_uuid: parent,
            received_uuid: None,
            created_transaction: self.transaction,
            transaction: self.transaction,
            received_transaction: None,
            read_only,
            created: SystemTime::now(),
        };
        self.subvolumes
            .insert(fs::symlink_metadata(path)?.ino(), subvolume);
        Ok(())
    }

    fn copy(&mut self, source: &Path, target: &Path, read_only: bool) -> io::Result<()> {
        self.count_change()?;
        let Some((_, parent)) = self.find(source)? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        copy_tree(source, target)?;
        self.add(target, Some(parent.uuid), read_only)
    }

    fn set_read_only(&mut self, path: &Path, read_only: bool) -> io::Result<()> {
        self.count_change()?;
        let Some((inode, subvolume)) = self.find(path)? else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let changed = Subvolume {
            read_only,
            ..subvolume
        };
        self.subvolumes.insert(inode, changed);
        Ok(())
    }

    /// Adds the subvolumes below a directory, relative to `top`.
    fn add_inner(&self, top: &Path, directory: &Path, inner: &mut Vec<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if self.subvolumes.contains_key(&entry.metadata()?.ino()) {
                inner.extend(path.strip_prefix(top).map(Path::to_owned));
            }
            if entry.file_type()?.is_dir() {
                self.add_inner(top, &path, inner)?;
            }
        }
        Ok(())
    }

    fn forget_below(&mut self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            self.subvolumes.remove(&entry.metadata()?.ino());
            if entry.file_type()?.is_dir() {
                self.forget_below(&entry.path())?;
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "tests have made the directories")]
fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        let to = target.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else if entry.file_type()?.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

impl FakeBackend {
    /// Makes all changes after the next `calls` ones fail; `None` repairs the backend.
    pub fn set_fuse(&self, calls: Option<usize>) {
        self.state().fuse = calls;
    }

    /// Makes the deletion of subvolumes of this name fail; `None` repairs the backend.
    pub fn set_fault(&self, name: Option<&str>) {
        self.state().fault = name.map(str::to_owned);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn count_change(&self) -> io::Result<()> {
        self.state().count_change()
    }
}

impl SubvolumeBackend for FakeBackend {
    fn info(&self, path: &Path) -> io::Result<Option<Subvolume>> {
        Ok(self.state().find(path)?.map(|(_, subvolume)| subvolume))
    }

    fn find(&self, _path: &Path, identity: Uuid) -> io::Result<Vec<Subvolume>> {
        let state = self.state();
        let subvolumes = state.subvolumes.values().copied();
        Ok(subvolumes.filter(|it| it.has_identity(identity)).collect())
    }

    fn inner(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inner = Vec::new();
        self.state().add_inner(path, path, &mut inner)?;
        Ok(inner)
    }

    fn find_default(&self, _subvolumes: &[PathBuf]) -> io::Result<Option<PathBuf>> {
        Ok(None)
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count_change()?;
        fs::create_dir(path)?;
        state.add(path, None, false)
    }

    fn snapshot(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.state().copy(source, target, false)
    }

    fn snapshot_read_only(&self, source: &Path, target: &Path) -> io::Result<()> {
        self.state().copy(source, target, true)
    }

    fn delete(&self, path: &Path) -> io::Result<Change> {
        let mut state = self.state();
        state.count_change()?;
        if path
            .file_name()
            .is_some_and(|name| state.fault.as_deref().is_some_and(|it| it == name))
        {
            return Err(io::Error::other("injected fault"));
        }
        let Some((inode, _)) = state.find(path)? else {
            return match path.symlink_metadata() {
                Ok(_) => Err(io::ErrorKind::InvalidInput.into()),
                Err(error) => unchanged_if_missing(Err(error)),
            };
        };
        state.forget_below(path)?;
        state.subvolumes.remove(&inode);
        unchanged_if_missing(fs::remove_dir_all(path))
    }

    fn make_read_only(&self, path: &Path) -> io::Result<()> {
        self.state().set_read_only(path, true)
    }

    fn make_writable(&self, path: &Path) -> io::Result<()> {
        self.state().set_read_only(path, false)
    }

    fn last_change(&self, _file: &Path) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn commit(&self, _path: &Path) -> io::Result<()> {
        self.count_change()
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.count_change()?;
        std::os::unix::fs::symlink(target, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.count_change()?;
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.count_change()?;
        exchange(one, other)
    }

    fn unlink(&self, path: &Path) -> io::Result<Change> {
        self.count_change()?;
        unchanged_if_missing(fs::remove_file(path))
    }

    fn create_directory(&self, path: &Path) -> io::Result<Change> {
        self.count_change()?;
        unchanged_if_exists(fs::create_dir(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<Change> {
        self.count_change()?;
        unchanged_if_missing(fs::remove_dir(path))
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let state = &mut *self.state();
        state.count_change()?;
        match path
            .parent()
            .map(|parent| state.find(parent))
            .transpose()?
            .flatten()
        {
            Some((_, subvolume)) if subvolume.read_only => {
                Err(io::ErrorKind::ReadOnlyFilesystem.into())
            }
            Some((inode, subvolume)) => {
                state.transaction += 1;
                let changed = Subvolume {
                    transaction: state.transaction,
                    ..subvolume
                };
                state.subvolumes.insert(inode, changed);
                file::replace(path, content)
            }
            None => file::replace(path, content),
        }
    }
}
