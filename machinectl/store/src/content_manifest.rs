//! Content manifests: the hashes of all files of a revision, stored inside it. They protect
//! against a changed parent of an incremental stream, which btrfs does not detect.

mod format;

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use config::layout::Entry;
use config::{MachineName, Revision};

pub use format::{ContentManifest, Difference, FileRecord, FormatError};

use crate::error::IoContext;
use crate::{Refusal, RefusalKind, Result, SubvolumeBackend, Volume};

/// The name of the content manifest in the top directory of a revision.
pub const FILE: &str = "contents.b3";

/// The maximum size of a content manifest, in bytes: enough for a million files.
const BYTES_MAX: u64 = 256 << 20;
/// The number of bytes that are hashed at once, enough to occupy all processors.
const CHUNK: u64 = 8 << 20;
/// The number of differences that an error names.
const DIFFERENCES_SHOWN: usize = 5;

/// A reason why a revision's content cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyRefusal {
    /// The content differs from the manifest.
    #[error("the content of `{}` differs from its manifest: {}", .0.display(), first_of(.1))]
    Differs(PathBuf, Vec<Difference>),
    /// The revision has no content manifest.
    #[error("`{}` has no content manifest; `buildhost push --from` makes one", .0.display())]
    NoManifest(PathBuf),
    /// The content manifest cannot be parsed.
    #[error("the content manifest `{}` cannot be parsed", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: FormatError,
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

fn first_of(differences: &[Difference]) -> String {
    let shown: Vec<_> = differences
        .iter()
        .take(DIFFERENCES_SHOWN)
        .map(ToString::to_string)
        .collect();
    let shown = shown.join(", ");
    match differences.len().saturating_sub(DIFFERENCES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The amount of verified content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The number of files, directories and links.
    pub entries: usize,
    /// The number of bytes of all files.
    pub bytes: u64,
}

impl Volume {
    /// Compares a revision, by default the current one, with its content manifest.
    ///
    /// # Errors
    /// The revision has no content manifest or differs from it. The error names the
    /// differences.
    pub fn verify(&self, machine: &MachineName, revision: Option<Revision>) -> Result<Verified> {
        let revision = self.resolve_revision(machine, revision)?;
        let _lock = self.lock_revision(machine, revision)?;
        let path = self.entry(machine, &Entry::Revision(revision));
        match verify(&path)? {
            Some(verified) => Ok(verified),
            None => Err(VerifyRefusal::NoManifest(path).into()),
        }
    }
}

/// Compares a directory with the content manifest in it. Returns `None` if it has no manifest.
pub(crate) fn verify(directory: &Path) -> Result<Option<Verified>> {
    let path = directory.join(FILE);
    let text = match sys::untrusted::read_text(directory, FILE, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.context("read", &path)?,
    };
    let recorded =
        ContentManifest::parse(&text).map_err(|source| VerifyRefusal::Manifest { path, source })?;
    let actual = scan(directory)?;
    let differences = recorded.compare(&actual);
    if !differences.is_empty() {
        return Err(VerifyRefusal::Differs(directory.to_owned(), differences).into());
    }
    Ok(Some(Verified {
        entries: actual.records.len(),
        bytes: actual.records.values().map(|record| record.size).sum(),
    }))
}

/// Writes a directory's content manifest into it.
pub(crate) fn write(backend: &dyn SubvolumeBackend, directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    let manifest = scan(directory)?;
    backend
        .write(&path, manifest.print().as_bytes())
        .context("write", &path)
}

/// Hashes all entries of a directory except its content manifest.
fn scan(directory: &Path) -> Result<ContentManifest> {
    let mut manifest = ContentManifest::default();
    add_entry(directory, Path::new("."), &mut manifest)?;
    Ok(manifest)
}

/// Adds an entry and, for a directory, everything below it.
fn add_entry(root: &Path, name: &Path, manifest: &mut ContentManifest) -> Result<()> {
    let path = root.join(name);
    let data = path.symlink_metadata().context("inspect", &path)?;
    let kind = data.file_type();
    let hash = if kind.is_file() {
        Some(hash_file(root, name).context("read", &path)?)
    } else if kind.is_symlink() {
        let target = fs::read_link(&path).context("read", &path)?;
        let hash = blake3::hash(target.as_os_str().as_bytes());
        Some(hash.to_hex().to_string())
    } else {
        None
    };
    let record = FileRecord {
        mode: data.mode(),
        owner: data.uid(),
        group: data.gid(),
        size: if kind.is_file() { data.len() } else { 0 },
        hash,
    };
    manifest
        .records
        .insert(name.as_os_str().as_bytes().to_vec(), record);
    if !kind.is_dir() {
        return Ok(());
    }
    let is_root = name == Path::new(".");
    for entry in fs::read_dir(&path).context("list", &path)? {
        let entry = entry.context("list", &path)?.file_name();
        if !is_root {
            add_entry(root, &name.join(entry), manifest)?;
        } else if entry != FILE {
            add_entry(root, Path::new(&entry), manifest)?;
        }
    }
    Ok(())
}

/// Returns the hash of a file's content, computed on all processors.
fn hash_file(root: &Path, name: &Path) -> io::Result<String> {
    let mut file = sys::untrusted::open(root, name)?;
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        if file.by_ref().take(CHUNK).read_to_end(&mut chunk)? == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update_rayon(&chunk);
    }
}
