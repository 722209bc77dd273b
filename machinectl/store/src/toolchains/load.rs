//! Opening a toolchain and telling its identity.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::task::Digest;
use config::{FileName, NameError, ToolchainName};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{ToolchainRefusal, is_missing};
use crate::Result;
use crate::error::IoContext;
use sys::file::{self, Hasher};

/// A toolchain with all its files open.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// Its name.
    pub name: ToolchainName,
    /// Its identity: a hash over the names and the contents of its files.
    pub id: Digest,
    /// Its files by their names. Read them with `read_at`: the offset is shared.
    pub files: BTreeMap<FileName, Arc<File>>,
}

/// A file that was read before, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    stamp: Stamp,
    digest: Digest,
}

/// What changes when a file does.
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
    known: &Mutex<HashMap<PathBuf, Known>>,
) -> Result<Toolchain> {
    // Everything is opened below this one descriptor: a toolchain that is replaced
    // meanwhile is read whole, old or new.
    let directory = match File::open(path) {
        Err(error) if is_missing(&error) => {
            return Err(ToolchainRefusal::NotFound(name.clone()).into());
        }
        directory => directory.context("open", path)?,
    };
    let mut files = BTreeMap::new();
    let mut hash = Hasher::default();
    for file_name in names(&directory, path)? {
        let file = open(&directory, path, &file_name)?;
        let digest = digest(&file, path.join(&file_name), known)?;
        hash.update(format!("{file_name} {digest}\n").as_bytes());
        files.insert(file_name, Arc::new(file));
    }
    if files.is_empty() {
        return Err(ToolchainRefusal::Empty(path.to_owned()).into());
    }
    Ok(Toolchain {
        name: name.clone(),
        id: hash.finish(),
        files,
    })
}

/// The names of a directory's files, sorted. Hidden ones belong to editors and
/// file systems, and are passed over.
pub(super) fn names(directory: &File, path: &Path) -> Result<Vec<FileName>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)
        .map_err(io::Error::from)
        .context("list", path)?
    {
        let entry = entry.map_err(io::Error::from).context("list", path)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_string_lossy();
        if !name.starts_with('.') {
            names.push(
                name.parse()
                    .map_err(|error: NameError| ToolchainRefusal::Name(error))?,
            );
        }
    }
    names.sort();
    Ok(names)
}

use std::os::unix::ffi::OsStrExt;

/// Opens one file. A link is followed when it stays inside the directory.
pub(super) fn open(directory: &File, path: &Path, name: &FileName) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let whole = path.join(name);
    let opened = rustix::fs::openat2(directory, name.as_str(), flags, Mode::empty(), resolve);
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::XDEV | Errno::LOOP | Errno::NOENT) => {
            return Err(ToolchainRefusal::LinkOutside(whole).into());
        }
        Err(error) => return Err(io::Error::from(error)).context("open", whole),
    };
    if file.metadata().context("look at", &whole)?.is_file() {
        Ok(file)
    } else {
        Err(ToolchainRefusal::NotFile(whole).into())
    }
}

/// The hash of a file's content, read only when the file has changed.
fn digest(file: &File, path: PathBuf, cache: &Mutex<HashMap<PathBuf, Known>>) -> Result<Digest> {
    let stamp = Stamp::of(file).context("look at", &path)?;
    if let Some(known) = cache.lock().get(&path).filter(|known| known.stamp == stamp) {
        return Ok(known.digest.clone());
    }
    let digest = file::digest(Whole { file, offset: 0 }).context("read", &path)?;
    let known = Known {
        stamp,
        digest: digest.clone(),
    };
    cache.lock().insert(path, known);
    Ok(digest)
}

/// Reads a file from its beginning without moving its offset.
struct Whole<'a> {
    file: &'a File,
    offset: u64,
}

impl io::Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
