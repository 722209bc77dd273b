//! Files that are old or new but never half written, and their hashes.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use config::task::Digest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, linkat, openat, seek};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// The mode of a directory that only its owner may enter.
const PRIVATE: u32 = 0o700;

/// The rights of all users but the owner.
const OTHERS: u32 = 0o077;

/// Replaces a file and commits it to the disk: after a crash the path has the old or the new
/// content. Only the owner may open it.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    file.write_all(content)?;
    publish(file, path)
}

/// Creates a file and commits it to the disk: after a crash it is whole or missing, and nothing else
/// is left in its directory. Only the owner may open it.
///
/// # Errors
/// The path exists, or the file system has no files without a name.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = File::open(directory_of(path))?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(&directory, ".", flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(content)?;
    file.sync_all()?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
    // The name is part of the directory.
    directory.sync_all()
}

/// Moves a temporary file of the same directory to a path, as [`replace`] does.
pub fn publish(file: NamedTempFile, path: &Path) -> io::Result<()> {
    let mode = Permissions::from_mode(0o600);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The rename is part of the directory.
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the paths of a directory's entries, sorted by name.
pub fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = directory
        .read_dir()?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Creates an empty directory and its parents. Deletes the previous content of the path.
pub fn fresh_directory(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(path)
}

/// Creates a directory that only its owner may enter, and its parents. Closes an existing
/// directory to others.
pub fn private_directory(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))
}

/// Closes a directory and everything in it to all users but the owners. Does nothing if the
/// directory itself is closed already: it is closed last. Leaves other file systems and subvolumes
/// in it alone, such as the images of machines.
pub fn close_tree(directory: &Path) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(directory)?;
    if is_closed(&metadata) {
        return Ok(());
    }
    for path in entries(directory)? {
        let entry = std::fs::symlink_metadata(&path)?;
        if entry.dev() != metadata.dev() {
            continue;
        }
        if entry.is_dir() {
            close_tree(&path)?;
        } else if !entry.is_symlink() {
            close(&path, &entry)?;
        }
    }
    close(directory, &metadata)
}

/// Returns true if a mode gives no rights to other users than the owner.
pub fn is_closed(metadata: &Metadata) -> bool {
    metadata.permissions().mode() & OTHERS == 0
}

fn close(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.permissions().mode() & 0o7777 & !OTHERS;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Returns the first position of a file, from a position on, that is not in a hole; `None` if only a
/// hole follows. Changes the position of the file.
pub fn next_data(file: &File, position: u64) -> io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(position)) {
        Err(Errno::NXIO) => Ok(None),
        // The file system does not know holes.
        Err(Errno::INVAL) => Ok(Some(position)),
        data => Ok(Some(data?)),
    }
}

/// Returns the SHA-256 hash of all bytes of a reader.
pub fn digest(mut reader: impl Read) -> io::Result<Digest> {
    let mut hasher = Hasher::default();
    // Larger than that of `io::copy`: artifacts have gigabytes.
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the SHA-256 hash of bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// A SHA-256 hash of the bytes that are written to it.
#[derive(Debug, Default, Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all bytes.
    pub fn finish(self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.0.finalize()))
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_a_file_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_created_file_has_its_content_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        create(&path, b"one").unwrap();
        let again = create(&path, b"two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        assert!(is_closed(&path.metadata().unwrap()));
    }

    #[test]
    fn a_tree_is_closed_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        open(outside.path(), 0o644);
        let top = directory.path().join("state");
        let (inner, file) = (top.join("a/b"), top.join("a/b/file"));
        std::fs::create_dir_all(&inner).unwrap();
        replace(&file, b"x").unwrap();
        assert_eq!(mode(&file), 0o600);
        std::os::unix::fs::symlink(outside.path(), inner.join("link")).unwrap();
        open(&file, 0o755);
        open(&inner, 0o777);
        open(&top, 0o755);
        close_tree(&top).unwrap();
        assert_eq!([&top, &inner, &file].map(|path| mode(path)), [0o700; 3]);
        assert_eq!(mode(outside.path()), 0o644);
    }

    #[test]
    fn a_fresh_directory_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        for _ in 0..2 {
            fresh_directory(&path).unwrap();
            assert_eq!(path.read_dir().unwrap().count(), 0);
            replace(&path.join("file"), b"old").unwrap();
        }
    }

    #[test]
    fn a_digest_equals_that_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest(io::empty()).unwrap().as_str(), empty);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest(&b"abc"[..]).unwrap().as_str(), abc);
    }
}
