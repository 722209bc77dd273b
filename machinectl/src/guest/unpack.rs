//! The archive of a file or a directory that comes out of a guest, which may be hostile.
//!
//! It is unpacked in a new directory that only its owner can enter. Every entry is created relative to
//! the descriptor of its directory, and links are never followed, neither those of the archive nor
//! others: nothing is written outside. The directory becomes the target when it is complete.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, mkdirat, open, openat, symlinkat};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

/// The largest number of entries of an archive.
const ENTRIES_MAX: u64 = 2_000_000;
/// The largest depth of an entry.
const DEPTH_MAX: usize = 200;

/// A reason to refuse an archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// The stream is not an archive, or ends too early.
    #[error("the guest sends no complete archive")]
    Archive(#[source] io::Error),
    /// An entry would be outside of the target.
    #[error(
        "the guest sends an archive with the path `{0}`, which is outside of what was asked for"
    )]
    Outside(String),
    /// An entry is below a link, or exists already.
    #[error("the guest sends an archive with the path `{0}` twice, or below a link")]
    Twice(String),
    /// The archive is too large.
    #[error("the guest sends more than {0} bytes; --bytes-max allows more")]
    TooLarge(u64),
    /// The archive has too many entries.
    #[error("the guest sends more than {ENTRIES_MAX} files")]
    TooMany,
    /// An entry cannot be created.
    #[error("cannot create `{path}`")]
    Create {
        /// The path in the archive.
        path: String,
        /// The cause.
        source: io::Error,
    },
}

/// The result of unpacking.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// The bytes of all files.
    pub(super) bytes: u64,
    /// The devices, sockets and pipes that were left out.
    pub(super) left_out: u64,
}

/// Unpacks an archive with one file or directory at its top into `directory`, which is empty, under
/// the name `name`.
pub(super) fn unpack(
    from: impl Read,
    directory: &Path,
    name: &OsStr,
    bytes_max: u64,
) -> Result<Unpacked, UnpackError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(directory, flags, Mode::empty()).map_err(|error| created(directory, error))?;
    let mut unpacker = Unpacker {
        root,
        name: name.to_owned(),
        top: None,
        bytes_max,
        unpacked: Unpacked::default(),
    };
    let mut archive = Archive::new(from);
    let entries = archive.entries().map_err(UnpackError::Archive)?;
    for (number, entry) in (1..).zip(entries) {
        if number > ENTRIES_MAX {
            return Err(UnpackError::TooMany);
        }
        unpacker.add(entry.map_err(UnpackError::Archive)?)?;
    }
    match unpacker.top {
        Some(_) => Ok(unpacker.unpacked),
        None => Err(UnpackError::Archive(io::ErrorKind::UnexpectedEof.into())),
    }
}

struct Unpacker {
    root: OwnedFd,
    /// The name of the file or directory here.
    name: OsString,
    /// Its name in the archive, once that is known.
    top: Option<OsString>,
    bytes_max: u64,
    unpacked: Unpacked,
}

impl Unpacker {
    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<(), UnpackError> {
        let path = entry.path().map_err(UnpackError::Archive)?.into_owned();
        let components = self.components(&path)?;
        let Some((name, parents)) = components.split_last() else {
            return Ok(());
        };
        let parent = self.open_parent(parents, &path)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => make_directory(&parent, name, mode, &path),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(mode | 0o200);
                let file = openat(&parent, name, flags, mode);
                let file = file.map_err(|error| created(&path, error))?;
                self.copy(&mut entry, File::from(file), &path)
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(UnpackError::Archive)?;
                let target = target.map(std::borrow::Cow::into_owned).unwrap_or_default();
                symlinkat(&target, &parent, name).map_err(|error| created(&path, error))
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(UnpackError::Archive)?;
                let target = target.map(std::borrow::Cow::into_owned).unwrap_or_default();
                self.link(&target, &parent, name, &path)
            }
            EntryType::XGlobalHeader | EntryType::XHeader => Ok(()),
            _ => {
                self.unpacked.left_out += 1;
                Ok(())
            }
        }
    }

    /// Returns the names from the root to an entry, with the top renamed.
    fn components(&mut self, path: &Path) -> Result<Vec<OsString>, UnpackError> {
        let outside = || UnpackError::Outside(shown(path));
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(name) => names.push(name.to_owned()),
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(outside());
                }
            }
        }
        if names.len() > DEPTH_MAX {
            return Err(outside());
        }
        if let Some(first) = names.first_mut() {
            let top = self.top.get_or_insert_with(|| first.clone());
            if top != first {
                return Err(outside());
            }
            first.clone_from(&self.name);
        }
        Ok(names)
    }

    /// Opens the directory of an entry without following links.
    fn open_parent(&self, names: &[OsString], path: &Path) -> Result<OwnedFd, UnpackError> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut directory = self
            .root
            .try_clone()
            .map_err(|source| UnpackError::Create {
                path: shown(path),
                source,
            })?;
        for name in names {
            directory = match openat(&directory, name, flags, Mode::empty()) {
                // An archive need not have an entry for each directory.
                Err(Errno::NOENT) => {
                    make_directory(&directory, name, 0o755, path)?;
                    openat(&directory, name, flags, Mode::empty())
                }
                opened => opened,
            }
            .map_err(|error| created(path, error))?;
        }
        Ok(directory)
    }

    fn copy(
        &mut self,
        entry: &mut impl Read,
        mut to: File,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let left = self.bytes_max - self.unpacked.bytes;
        let failed = |source| UnpackError::Create {
            path: shown(path),
            source,
        };
        let copied = io::copy(&mut entry.take(left.saturating_add(1)), &mut to).map_err(failed)?;
        if copied > left {
            return Err(UnpackError::TooLarge(self.bytes_max));
        }
        self.unpacked.bytes += copied;
        Ok(())
    }

    /// Creates another name of a file of the archive.
    fn link(
        &mut self,
        target: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), UnpackError> {
        let components = self.components(target)?;
        let Some((target, parents)) = components.split_last() else {
            return Err(UnpackError::Outside(shown(path)));
        };
        let from = self.open_parent(parents, path)?;
        // Without `SYMLINK_FOLLOW`, a link gets another name itself.
        linkat(&from, target, parent, name, AtFlags::empty()).map_err(|error| created(path, error))
    }
}

/// Creates a directory that its owner can enter, unless it exists.
fn make_directory(
    parent: impl AsFd,
    name: &OsStr,
    mode: u32,
    path: &Path,
) -> Result<(), UnpackError> {
    match mkdirat(&parent, name, Mode::from_raw_mode(mode | 0o700)) {
        Err(Errno::EXIST) => {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = openat(&parent, name, flags, Mode::empty());
            opened.map(drop).map_err(|error| created(path, error))
        }
        result => result.map_err(|error| created(path, error)),
    }
}

fn created(path: &Path, error: Errno) -> UnpackError {
    match error {
        Errno::EXIST | Errno::LOOP | Errno::NOTDIR => UnpackError::Twice(shown(path)),
        error => UnpackError::Create {
            path: shown(path),
            source: error.into(),
        },
    }
}

fn shown(path: &Path) -> String {
    config::printable(&path.to_string_lossy()).to_string()
}

/// Gives a complete file or directory its name. An existing file is replaced; an existing directory
/// is not.
pub(super) fn publish(from: &Path, to: &Path) -> io::Result<()> {
    let is_directory = |path: &Path| path.symlink_metadata().is_ok_and(|it| it.is_dir());
    if is_directory(to) || (is_directory(from) && to.symlink_metadata().is_ok()) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    rustix::fs::renameat(CWD, from, CWD, to)?;
    Ok(())
}

/// Returns the directory in which a target is, and its name there.
pub(super) fn place(target: &Path, name: &str) -> (PathBuf, OsString) {
    let is_directory = target.is_dir() || target.as_os_str().as_bytes().ends_with(b"/");
    let parent = target.parent().filter(|it| !it.as_os_str().is_empty());
    match (is_directory, target.file_name()) {
        (false, Some(name)) => (parent.unwrap_or(Path::new(".")).to_owned(), name.to_owned()),
        (true, _) | (false, None) => (target.to_owned(), name.into()),
    }
}

#[cfg(test)]
mod tests;
