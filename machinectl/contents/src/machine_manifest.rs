//! The manifests in a revision, an image or a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use config::machine::{FILE, Machine, MachineError};
use config::task::{BOOTSTRAP, Provenance};

use btrfs::error::IoContext;
use btrfs::{Refusal, RefusalKind, Result};

/// The maximum size of a manifest, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// A reason why a directory does not describe a machine.
#[derive(Debug, thiserror::Error)]
pub enum ManifestRefusal {
    /// The directory has no manifest.
    #[error("`{}` lacks `{FILE}`", .0.display())]
    Missing(PathBuf),
    /// The manifest cannot be parsed.
    #[error("`{}` is not the manifest of a machine", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: MachineError,
    },
}

impl Refusal for ManifestRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Missing(_) | Self::Invalid { .. } => RefusalKind::Invalid,
        }
    }
}

/// Reads the machine's manifest in the directory of an image or a snapshot.
///
/// # Errors
/// The manifest is missing or cannot be read or parsed.
pub fn machine_manifest(directory: &Path) -> Result<Machine> {
    machine_manifest_of(directory, directory)
}

/// Reads a manifest as [`machine_manifest`] does. Errors name `source`, which the directory was
/// made of.
pub(crate) fn machine_manifest_of(directory: &Path, source: &Path) -> Result<Machine> {
    let path = source.join(FILE);
    let text = match sys::untrusted::read_text(directory, FILE, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ManifestRefusal::Missing(source.to_owned()).into());
        }
        text => text.context("read", &path)?,
    };
    let machine =
        Machine::parse(&text).map_err(|source| ManifestRefusal::Invalid { path, source })?;
    Ok(machine)
}

/// Reads the provenance in the directory of an image or a snapshot: the revision and the
/// toolchain that it was made from. Returns `None` if it cannot be parsed.
///
/// # Errors
/// The file is missing or cannot be read.
pub fn image_provenance(directory: &Path) -> io::Result<Option<Provenance>> {
    let text = sys::untrusted::read_text(directory, BOOTSTRAP, BYTES_MAX)?;
    Ok(Provenance::parse(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_and_an_invalid_manifest_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let error = || machine_manifest(directory.path()).unwrap_err().to_string();
        assert!(error().ends_with("lacks `manifest`"), "{}", error());
        sys::file::replace(&directory.path().join(FILE), b"nonsense").unwrap();
        assert!(error().ends_with("is not the manifest of a machine"));
        let text = b": 1\nid: d\nsummary: d\n";
        sys::file::replace(&directory.path().join(FILE), text).unwrap();
        machine_manifest(directory.path()).unwrap();
    }
}
