//! Content manifests: the hashes of all files of a revision, stored inside it. They protect
//! against a changed parent of an incremental stream, which btrfs does not detect.

mod blocks;
mod difference;
mod format;
mod scan;
mod update;

use std::io;
use std::path::{Path, PathBuf};

use config::task::{BOOTSTRAP, Digest};

pub use difference::Difference;
pub use format::{BLOCK, ContentManifest, FileContent, FileRecord, Format, FormatError};
pub use update::ManifestUpdate;

use btrfs::error::IoContext;
use btrfs::{Refusal, RefusalKind, Result, SubvolumeBackend};

/// The name of the content manifest in the top directory of a revision.
pub const FILE: &str = "contents.b3";

/// The name of the content manifest of a bootstrapped image, in its top directory. It covers
/// everything in the image, checkpoints included, except itself and the record of the bootstrap.
/// The content manifest of the revision, which the image still contains, does not describe it.
pub const IMAGE_FILE: &str = "image.b3";

/// The extended attributes that belong to an image, as patterns: manifests cover them, and archives
/// keep them. The others belong to the host, such as the labels of its security policy, or to the
/// file system.
pub const ATTRIBUTES: [&str; 5] = [
    "user.*",
    "trusted.*",
    "security.capability",
    "system.posix_acl_access",
    "system.posix_acl_default",
];

/// The maximum size of a content manifest, in bytes: enough for a million files.
pub const BYTES_MAX: u64 = 256 << 20;
/// The number of differences that an error names.
const DIFFERENCES_SHOWN: usize = 5;

/// A reason why a revision's content cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyRefusal {
    /// The content differs from the manifest.
    #[error("the content of `{}` differs from its manifest: {}", .0.display(), first_of(.1))]
    Differs(PathBuf, Vec<Difference>),
    /// The hashes of two revisions cannot be compared.
    #[error(
        "the content manifests have the formats {0} and {1}, whose hashes cannot be compared; `buildhost push --from` makes new ones"
    )]
    Formats(Format, Format),
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
            Self::Formats(..) | Self::Manifest { .. } => RefusalKind::Invalid,
        }
    }
}

/// Returns the first differences as text, and the number of the others.
pub fn first_of(differences: &[Difference]) -> String {
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
    /// The format of the content manifest, which determines the verified properties.
    pub format: Format,
    /// True if it was compared with a record that this host made of it.
    pub is_recorded: bool,
}

/// Returns the hash of a directory's content manifest; `None` if it cannot be
/// read.
pub fn digest(directory: &Path) -> Option<Digest> {
    let text = sys::untrusted::read_text(directory, FILE, BYTES_MAX).ok()?;
    Some(sys::file::digest_of(text.as_bytes()))
}

/// Returns true if a directory has a content manifest.
pub fn exists(directory: &Path) -> bool {
    directory.join(FILE).symlink_metadata().is_ok()
}

/// Returns the content manifest in a directory; `None` if it has none.
///
/// # Errors
/// The content manifest cannot be read or parsed.
pub fn read(directory: &Path) -> Result<Option<ContentManifest>> {
    let path = directory.join(FILE);
    let text = match sys::untrusted::read_text(directory, FILE, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.context("read", &path)?,
    };
    let manifest =
        ContentManifest::parse(&text).map_err(|source| VerifyRefusal::Manifest { path, source })?;
    Ok(Some(manifest))
}

/// Returns a name as differences have it.
pub fn escaped(name: &[u8]) -> String {
    format::escape(name, b"")
}

/// Compares a directory with the content manifest in it. Returns `None` if it has no manifest.
///
/// # Errors
/// The content differs, or something cannot be read.
pub fn verify(directory: &Path) -> Result<Option<Verified>> {
    let Some(recorded) = read(directory)? else {
        return Ok(None);
    };
    let (verified, differences) = compare(directory, recorded)?;
    if !differences.is_empty() {
        return Err(VerifyRefusal::Differs(directory.to_owned(), differences).into());
    }
    Ok(Some(verified))
}

/// Compares a directory with a content manifest. Reads everything.
///
/// # Errors
/// The directory cannot be read.
pub fn compare(
    directory: &Path,
    mut recorded: ContentManifest,
) -> Result<(Verified, Vec<Difference>)> {
    if !scan::sees_trusted_attributes() {
        recorded.forget_trusted_attributes();
    }
    let actual = scan::scan(directory, recorded.format, &[FILE])?;
    Ok((Verified::of(&actual), recorded.compare(&actual)))
}

impl Verified {
    /// Returns the amount that a manifest covers.
    pub fn of(manifest: &ContentManifest) -> Self {
        Self {
            entries: manifest.records.len(),
            bytes: manifest.records.values().map(|record| record.size).sum(),
            format: manifest.format,
            is_recorded: false,
        }
    }
}

/// Starts an update of the content manifest in a directory, by a stream whose parent it is.
/// Returns `None` if it has none of the latest format.
pub fn update_of(parent: &Path) -> Option<ManifestUpdate> {
    ManifestUpdate::of(read(parent).ok()??)
}

/// Compares a directory with the content manifest in it, as [`verify`] does. Reads only what the
/// stream has changed, unless that seems to differ.
///
/// # Errors
/// The content differs, or something cannot be read.
pub fn verify_update(directory: &Path, update: ManifestUpdate) -> Result<Option<Verified>> {
    if let (Ok(Some(recorded)), Ok(actual)) = (read(directory), update.finish(directory))
        && recorded == actual
    {
        return Ok(Some(Verified::of(&actual)));
    }
    verify(directory)
}

/// Returns the content manifest of a directory. Reads everything.
///
/// # Errors
/// The directory cannot be read.
pub fn scan_all(directory: &Path) -> Result<ContentManifest> {
    scan::scan(directory, Format::Three, &[FILE])
}

/// Returns the content manifest of a bootstrapped image. Reads everything.
///
/// # Errors
/// The image cannot be read.
pub fn scan_image(directory: &Path) -> Result<ContentManifest> {
    scan::scan(directory, Format::Three, &[IMAGE_FILE, BOOTSTRAP])
}

/// Writes a directory's content manifest into it.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    backend: &dyn SubvolumeBackend,
    directory: &Path,
    manifest: &ContentManifest,
) -> Result<()> {
    let path = directory.join(FILE);
    backend
        .write(&path, manifest.print().as_bytes())
        .context("write", &path)
}
