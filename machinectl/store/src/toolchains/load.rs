//! Opens a toolchain and computes its ID.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::task::Digest;
use config::{FileName, ToolchainName};
use parking_lot::Mutex;
use sys::file::{self, Hasher};

use super::{ToolchainRefusal, is_missing};
use crate::Result;
use btrfs::error::IoContext;

/// A toolchain whose files are open.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The name.
    pub name: ToolchainName,
    /// The ID: a hash of the names and contents of all files.
    pub id: Digest,
    /// The files. Read them with `read_at`, because clones share the offset.
    pub files: BTreeMap<FileName, Arc<File>>,
}

/// The digest of a file, valid while the file's stamp is the same.
#[derive(Debug, Clone)]
pub(super) struct CachedDigest {
    stamp: Stamp,
    digest: Digest,
}

/// The metadata that changes with a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        Ok(Self {
            device: data.dev(),
            inode: data.ino(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

pub(super) fn load(
    path: &Path,
    name: &ToolchainName,
    digests: &Mutex<HashMap<PathBuf, CachedDigest>>,
) -> Result<Toolchain> {
    // All files are opened below this descriptor, so a toolchain that is replaced meanwhile
    // is the old or the new one as a whole.
    let directory = match sys::trusted::open(path) {
        Err(error) if is_missing(&error) => {
            return Err(ToolchainRefusal::NotFound(name.clone()).into());
        }
        directory => directory.context("open", path)?,
    };
    let mut files = BTreeMap::new();
    let mut hasher = Hasher::default();
    for file_name in names(&directory, path)? {
        let file = open(&directory, path, &file_name)?;
        let digest = digest(&file, path.join(&file_name), digests)?;
        hasher.update(format!("{file_name} {digest}\n").as_bytes());
        files.insert(file_name, Arc::new(file));
    }
    if files.is_empty() {
        return Err(ToolchainRefusal::Empty(path.to_owned()).into());
    }
    Ok(Toolchain {
        name: name.clone(),
        id: hasher.finish(),
        files,
    })
}

/// Returns the names of a directory's files, sorted. Ignores hidden files, which belong to
/// editors and file systems.
pub(super) fn names(directory: &File, path: &Path) -> Result<Vec<FileName>> {
    let entries = rustix::fs::Dir::read_from(directory)
        .map_err(io::Error::from)
        .context("list", path)?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io::Error::from).context("list", path)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_string_lossy();
        if !name.starts_with('.') {
            names.push(name.parse().map_err(ToolchainRefusal::Name)?);
        }
    }
    names.sort();
    Ok(names)
}

/// Opens a file. Follows a symbolic link that stays inside the directory.
pub(super) fn open(directory: &File, path: &Path, name: &FileName) -> Result<File> {
    let path = path.join(name);
    match sys::untrusted::open_beneath(directory, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(error).context("open", path)
        }
        Err(source) => Err(ToolchainRefusal::Unusable { path, source }.into()),
        Ok(file) => Ok(file),
    }
}

/// Returns the digest of a file's content. Reads the file only if it has changed.
fn digest(
    file: &File,
    path: PathBuf,
    cache: &Mutex<HashMap<PathBuf, CachedDigest>>,
) -> Result<Digest> {
    let stamp = Stamp::of(file).context("inspect", &path)?;
    if let Some(cached) = cache.lock().get(&path).filter(|it| it.stamp == stamp) {
        return Ok(cached.digest.clone());
    }
    let digest = file::digest(FromStart { file, offset: 0 }).context("read", &path)?;
    let cached = CachedDigest {
        stamp,
        digest: digest.clone(),
    };
    cache.lock().insert(path, cached);
    Ok(digest)
}

/// A reader of a file from its start that does not move the file's offset.
struct FromStart<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
