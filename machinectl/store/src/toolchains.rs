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

use crate::{Change, LOCK_TIMEOUT, LockRefusal, Refusal, RefusalKind, Result, lock};
use btrfs::error::IoContext;
use load::CachedDigest;

/// A reason why a toolchain cannot be used, added or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainRefusal {
    /// There is no toolchain of this name.
    #[error("there is no toolchain `{0}`; `buildhost toolchain list` lists all toolchains")]
    NotFound(ToolchainName),
    /// An entry is neither a file nor a symbolic link to a file in the toolchain's directory.
    #[error(
        "`{}` cannot be used; a toolchain is a directory of files, and links in it may not \
         lead out of it",
        path.display()
    )]
    Unusable {
        /// The entry.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
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
            Self::Unusable { .. } | Self::Empty(_) | Self::Name(_) => RefusalKind::Invalid,
        }
    }
}

/// A directory of toolchains. Cheap to clone; clones share a cache of file hashes.
#[derive(Debug, Clone)]
pub struct Toolchains {
    path: Arc<Path>,
    digests: Arc<Mutex<HashMap<PathBuf, CachedDigest>>>,
}

impl Toolchains {
    /// Opens a directory of toolchains. It need not be on btrfs.
    ///
    /// # Errors
    /// The directory does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().context("open", path)?;
        Ok(Self {
            path: path.into(),
            digests: Arc::default(),
        })
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the names of all toolchains, sorted.
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

    /// Adds a copy of a directory's files and links as a toolchain, or replaces the toolchain
    /// of that name. Readers get the old or the new one as a whole; a loaded one does not
    /// change.
    ///
    /// # Errors
    /// The directory is empty, or has entries that a toolchain cannot have or links that lead
    /// out of it. Then nothing is changed.
    pub fn add(&self, name: &ToolchainName, directory: &Path) -> Result<Change> {
        let _lock = self.lock()?;
        let staged = stage::copy(directory, &self.path, name)?;
        let new = load::load(&staged, name, &self.digests)?;
        let target = self.path.join(name);
        let is_same = target.is_dir()
            && load::load(&target, name, &self.digests).is_ok_and(|old| old.id == new.id);
        if !is_same {
            stage::publish(&staged, &target)?;
        }
        stage::clear(&self.path)?;
        Ok(if is_same {
            Change::Unchanged
        } else {
            Change::Changed
        })
    }

    /// Deletes a toolchain. A loaded one stays usable.
    pub fn delete(&self, name: &ToolchainName) -> Result<Change> {
        let _lock = self.lock()?;
        let target = self.path.join(name);
        if target.symlink_metadata().is_err() {
            return Ok(Change::Unchanged);
        }
        stage::unpublish(&target, &self.path, name)?;
        stage::clear(&self.path)?;
        Ok(Change::Changed)
    }

    /// Opens all files of a toolchain and computes its ID. The result keeps its content when
    /// the toolchain is replaced or deleted.
    ///
    /// # Errors
    /// The toolchain does not exist, or has entries that a toolchain cannot have or links that
    /// lead out of it.
    pub fn load(&self, name: &ToolchainName) -> Result<Toolchain> {
        load::load(&self.path.join(name), name, &self.digests)
    }

    /// Acquires the lock of the directory and removes the remains of interrupted changes.
    fn lock(&self) -> Result<File> {
        let file = lock::open_directory(&self.path).context("open", &self.path)?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        let locked = lock::retry_until(deadline, || lock::acquired(file.try_lock()));
        if locked.context("lock", &self.path)? {
            stage::clear(&self.path)?;
            return Ok(file);
        }
        Err(LockRefusal::in_use(&self.path).into())
    }
}

/// Checks that a directory can become a toolchain. Changes nothing.
///
/// # Errors
/// [`Toolchains::add`] would refuse it.
pub fn check(directory: &Path) -> Result<()> {
    stage::check(directory).map(|_| ())
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
