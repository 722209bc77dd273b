//! Files are old or new, never half; and what a file's content is known by.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use config::task::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// Puts a file in place, whole and on the disk: after a crash there is the old
/// one or the new one. It may be read by all, as if it had been written plainly.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    file.write_all(content)?;
    publish(file, path)
}

/// Gives a file that was written beside it its place, as [`replace`] does.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename itself lives in the directory.
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The entries of a directory, in the order of their names.
pub fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = directory
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()));
    let mut paths = entries.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Makes an empty directory, with its parents; what was there before is gone.
pub fn fresh_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(path)
}

/// The SHA-256 hash of everything that is read.
pub fn digest(mut reader: impl Read) -> io::Result<Digest> {
    let mut hash = Hash::default();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hash.finish()),
            Ok(count) => hash.add(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A SHA-256 hash in the making.
#[derive(Debug, Default, Clone)]
pub struct Hash(Sha256);

impl Hash {
    /// Adds what comes next.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything that was added.
    pub fn finish(self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.0.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_digest_is_that_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(io::empty()).unwrap().as_str(), empty);
    }
}
