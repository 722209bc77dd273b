//! What a revision's content is: a record of all its files and their hashes, which
//! travels inside it, because btrfs cannot see that a parent was tampered with.

mod format;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::layout::Entry;
use config::{MachineName, Revision};

pub use format::{Difference, Item, Record, RecordError};

use crate::error::IoContext;
use crate::subvolumes::SubvolumeBackend;
use crate::{Refusal, RefusalKind, Result, Volume};

/// The file with the record, in the top directory of a revision.
pub const FILE: &str = "contents.b3";

/// Read at once; so much keeps all processors busy with one file.
const CHUNK: usize = 8 << 20;

/// A reason why a revision's content cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyRefusal {
    /// The content differs from the manifest.
    #[error("the content of `{}` is not what was recorded: {}", .0.display(), some(.1))]
    Differs(PathBuf, Vec<Difference>),
    /// The revision has no content manifest.
    #[error("`{}` has no record of its content; `buildhost push --from` makes one", .0.display())]
    NoManifest(PathBuf),
    /// The content manifest cannot be parsed.
    #[error("the content manifest `{}` cannot be parsed", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: RecordError,
    },
}

impl Refusal for VerifyRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Differs(..) => RefusalKind::Differs,
            Self::NoManifest(_) | Self::Manifest { .. } => RefusalKind::Invalid,
        }
    }
}

/// The first few of many.
fn some(differences: &[Difference]) -> String {
    const SHOWN: usize = 5;
    let shown = differences.iter().take(SHOWN).map(ToString::to_string);
    let shown = shown.collect::<Vec<_>>().join(", ");
    match differences.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// What a check has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Files, directories and links.
    pub items: usize,
    /// The content of all files.
    pub bytes: u64,
}

impl Volume {
    /// Compares a revision with its record.
    ///
    /// # Errors
    /// When it has no record, or differs from it; the differences are named.
    pub fn verify(&self, machine: &MachineName, revision: Option<Revision>) -> Result<Checked> {
        let revision = self.plan_send(machine, revision)?;
        let _held = self.hold_revision(machine, revision)?;
        let path = self.entry(machine, &Entry::Revision(revision));
        match check(&path)? {
            Some(checked) => Ok(checked),
            None => Err(VerifyRefusal::NoManifest(path).into()),
        }
    }
}

/// Compares a directory with the record in it; `None` when it has none.
pub(crate) fn check(path: &Path) -> Result<Option<Checked>> {
    let file = path.join(FILE);
    let text = match fs::read_to_string(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.context("read", &file)?,
    };
    let bad = |source| VerifyRefusal::Manifest {
        path: file.clone(),
        source,
    };
    let recorded = Record::parse(&text).map_err(bad)?;
    let found = read(path)?;
    let differences = recorded.compare(&found);
    if differences.is_empty() {
        return Ok(Some(Checked {
            items: found.items.len(),
            bytes: found.items.values().map(|item| item.size).sum(),
        }));
    }
    Err(VerifyRefusal::Differs(path.to_owned(), differences).into())
}

/// Writes a directory's record into it.
pub(crate) fn write(backend: &dyn SubvolumeBackend, path: &Path) -> Result<()> {
    let file = path.join(FILE);
    let record = read(path)?;
    backend
        .write(&file, record.print().as_bytes())
        .context("write", &file)
}

/// Reads everything in a directory except its record.
fn read(path: &Path) -> Result<Record> {
    let mut record = Record::default();
    walk(path, Path::new("."), &mut record)?;
    Ok(record)
}

fn walk(root: &Path, name: &Path, record: &mut Record) -> Result<()> {
    let path = root.join(name);
    let data = path.symlink_metadata().context("look at", &path)?;
    let kind = data.file_type();
    let hash = if kind.is_file() {
        Some(hash(&path).context("read", &path)?)
    } else if kind.is_symlink() {
        let target = fs::read_link(&path).context("read", &path)?;
        Some(
            blake3::hash(target.as_os_str().as_bytes())
                .to_hex()
                .to_string(),
        )
    } else {
        None
    };
    let item = Item {
        mode: data.mode(),
        owner: data.uid(),
        group: data.gid(),
        size: if kind.is_file() { data.len() } else { 0 },
        hash,
    };
    record
        .items
        .insert(name.as_os_str().as_bytes().to_vec(), item);
    if kind.is_dir() {
        for entry in fs::read_dir(&path).context("list", &path)? {
            let entry = entry.context("list", &path)?.file_name();
            let top = name == Path::new(".");
            if !(top && entry == FILE) {
                let inner = if top { entry.into() } else { name.join(entry) };
                walk(root, &inner, record)?;
            }
        }
    }
    Ok(())
}

/// The hash of a file's content, by all processors.
fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        let limit = u64::try_from(CHUNK).unwrap_or(u64::MAX);
        if file.by_ref().take(limit).read_to_end(&mut chunk)? == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&chunk);
    }
}
