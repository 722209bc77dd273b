//! Toolchains: flat directories of files that guests fetch and install.

mod load;

mod stage;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use config::{NameError, ToolchainName};

use parking_lot::Mutex;

pub use load::Toolchain;

use crate::error::IoContext;
use crate::subvolumes::Change;
use crate::{LockRefusal, PATIENCE, Refusal, RefusalKind, Result, lock};
use load::Known;

/// A reason why a toolchain cannot be used, added or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainRefusal {
    /// There is no toolchain of this name.
    #[error("there is no toolchain `{0}`; `buildhost toolchain list` lists all toolchains")]
    NotFound(ToolchainName),
    /// A symbolic link has no target in the toolchain's directory.
    #[error("`{}` leads out of the toolchain's directory or to nothing; only links inside it are followed", .0.display())]
    LinkOutside(PathBuf),
    /// An entry is not a file.
    #[error("`{}` is not a file; a toolchain is a directory of files", .0.display())]
    NotFile(PathBuf),
    /// The directory contains nothing to install.
    #[error("`{}` holds no files", .0.display())]
    Empty(PathBuf),
    /// The name of a file is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Refusal for ToolchainRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotFound(_) => RefusalKind::NotFound,
            Self::LinkOutside(_) | Self::NotFile(_) | Self::Empty(_) | Self::Name(_) => {
                RefusalKind::Invalid
            }
        }
    }
}

/// A directory of toolchains. Cheap to clone; clones share what they have read.
#[derive(Debug, Clone)]
pub struct Toolchains {
    path: Arc<Path>,
    known: Arc<Mutex<HashMap<PathBuf, Known>>>,
}

impl Toolchains {
    /// Opens a directory of toolchains, which need not be on btrfs.
    ///
    /// # Errors
    /// When it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().context("open", path)?;
        Ok(Self {
            path: path.into(),
            known: Arc::default(),
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directories whose names are names of toolchains, sorted.
    pub fn list(&self) -> Result<Vec<ToolchainName>> {
        let mut names = Vec::new();
        for entry in self.path.read_dir().context("list", &self.path)? {
            let entry = entry.context("list", &self.path)?;
            let name = entry.file_name();
            if let (true, Some(Ok(name))) = (entry.path().is_dir(), name.to_str().map(str::parse)) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Copies a directory's files and links in as a toolchain, in place of the one
    /// of that name. A reader sees the old one or the new one, whole; one that has
    /// loaded the old one goes on with it.
    ///
    /// # Errors
    /// When the directory holds nothing, or what a toolchain cannot hold, or links
    /// that lead out of it; then nothing is changed.
    pub fn add(&self, name: &ToolchainName, directory: &Path) -> Result<Change> {
        let _lock = self.lock()?;
        let staged = stage::copy(directory, &self.path, name)?;
        let new = load::load(&staged, name, &self.known)?;
        let target = self.path.join(name);
        if target.is_dir()
            && load::load(&target, name, &self.known).is_ok_and(|old| old.id == new.id)
        {
            stage::clear(&self.path)?;
            return Ok(Change::Unchanged);
        }
        stage::put(&staged, &target)?;
        stage::clear(&self.path)?;
        Ok(Change::Changed)
    }

    /// Deletes a toolchain. Who has loaded it goes on with it.
    pub fn delete(&self, name: &ToolchainName) -> Result<Change> {
        let _lock = self.lock()?;
        let target = self.path.join(name);
        if target.symlink_metadata().is_err() {
            return Ok(Change::Unchanged);
        }
        stage::take_away(&target, &self.path, name)?;
        stage::clear(&self.path)?;
        Ok(Change::Changed)
    }

    /// Opens every file of a toolchain and tells its identity. What is returned
    /// keeps its content when the toolchain is replaced or deleted.
    ///
    /// # Errors
    /// When it is not there, holds what a toolchain cannot hold, or has a link that
    /// leads out of it.
    pub fn load(&self, name: &ToolchainName) -> Result<Toolchain> {
        load::load(&self.path.join(name), name, &self.known)
    }

    /// One change at a time; what we find half-done under the lock is left over.
    fn lock(&self) -> Result<File> {
        let file = lock::open_directory(&self.path).context("open", &self.path)?;
        let deadline = Instant::now() + PATIENCE;
        let taken = lock::until(deadline, || lock::attempt(file.try_lock()));
        if taken.context("lock", &self.path)? {
            stage::clear(&self.path)?;
            return Ok(file);
        }
        Err(LockRefusal::in_use(&self.path).into())
    }
}

/// Whether a directory can become a toolchain. Changes nothing.
///
/// # Errors
/// Those of [`Toolchains::add`] that can be known before.
pub fn check(directory: &Path) -> Result<()> {
    stage::check(directory).map(|_| ())
}

/// Whether an error says that something is not there.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
