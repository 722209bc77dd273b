//! Unpacks the files of a build that a worker has put in one archive.
//!
//! The archive is a guest's: nothing in it leads to a path, and it is read as it
//! lies there, so that no number in it makes us keep more than one block in memory.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use std::path::Path;

use config::task::RESERVED_ARTIFACTS;
use config::{FileName, NameError};
use tar::{Archive, Entry, EntryType, PaxExtensions};
use tempfile::NamedTempFile;

/// The longest of the entries that only tell the name of the next one.
const NAME_BYTES_MAX: u64 = 16 * 1024;

/// The limits of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The size of all files together, in bytes.
    pub bytes_max: u64,
    /// The number of files.
    pub files_max: usize,
}

/// The reason for which an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It is damaged or cut off.
    #[error("it is not a readable tar archive: {0}")]
    Read(io::Error),
    /// A file of ours.
    #[error("cannot write what it holds: {0}")]
    Write(io::Error),
    /// A name that no file of a build can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name of a file is not one, either.
    #[error("the name of a file is too long or not UTF-8")]
    Text,
    /// A name that only the host may use.
    #[error("{0} is reserved for a file of the host")]
    Reserved(FileName),
    /// Something else than a file or a directory.
    #[error("{0} is neither a file nor a directory")]
    Kind(String),
    /// Two files would become one.
    #[error("it holds two files {0}")]
    Twice(FileName),
    /// It is too large.
    #[error("it holds more than {} bytes in {} files", .0.bytes_max, .0.files_max)]
    Full(Limits),
}

/// Unpacks an archive into a directory of files. Those that are there under a name
/// of the archive are replaced. All of it is on disk then.
pub(super) fn unpack(
    archive: impl Read,
    directory: &Path,
    limits: &Limits,
) -> Result<(), UploadError> {
    let mut archive = Archive::new(BufReader::new(archive));
    let mut told = None;
    let mut seen = BTreeSet::new();
    let mut left = limits.bytes_max;
    for entry in archive.entries().map_err(UploadError::Read)?.raw(true) {
        let mut entry = entry.map_err(UploadError::Read)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => continue,
            EntryType::XHeader | EntryType::GNULongName => {
                told = longer_name(&mut entry, kind)?.or(told);
                continue;
            }
            _ => {}
        }
        let path = match told.take() {
            Some(path) => path,
            None => {
                String::from_utf8(entry.path_bytes().into_owned()).map_err(|_| UploadError::Text)?
            }
        };
        let Some(name) = file_name(&path, kind)? else {
            continue;
        };
        let size = entry.size();
        if size > left || seen.len() >= limits.files_max {
            return Err(UploadError::Full(*limits));
        }
        left -= size;
        write(&mut entry, size, &directory.join(&name))?;
        if let Some(twice) = seen.replace(name) {
            return Err(UploadError::Twice(twice));
        }
    }
    let synced = sys::trusted::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(UploadError::Write)
}

/// The name that this entry gives to the next one.
fn longer_name(
    entry: &mut Entry<impl Read>,
    kind: EntryType,
) -> Result<Option<String>, UploadError> {
    let mut bytes = Vec::new();
    let mut content = entry.take(NAME_BYTES_MAX + 1);
    content.read_to_end(&mut bytes).map_err(UploadError::Read)?;
    if bytes.len() as u64 > NAME_BYTES_MAX {
        return Err(UploadError::Text);
    }
    if kind == EntryType::GNULongName {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(text(name)?));
    }
    for extension in PaxExtensions::new(&bytes) {
        let extension = extension.map_err(UploadError::Read)?;
        if extension.key_bytes() == b"path" {
            return Ok(Some(text(extension.value_bytes())?));
        }
    }
    Ok(None)
}

fn text(bytes: &[u8]) -> Result<String, UploadError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| UploadError::Text)
}

/// Returns the name of a file of the archive among the artifacts; `None` for a directory.
/// All parts of its path must be names.
fn file_name(path: &str, kind: EntryType) -> Result<Option<FileName>, UploadError> {
    let parts = path.trim_end_matches('/').split('/');
    let mut names = Vec::new();
    for part in parts.filter(|part| *part != ".") {
        names.push(part.parse::<FileName>()?);
    }
    match (kind, names.pop()) {
        (EntryType::Directory, _) => Ok(None),
        (EntryType::Regular, Some(name)) if RESERVED_ARTIFACTS.contains(&name.as_str()) => {
            Err(UploadError::Reserved(name))
        }
        (EntryType::Regular, Some(name)) => Ok(Some(name)),
        (_, Some(name)) => Err(UploadError::Kind(name.to_string())),
        (_, None) => Err(UploadError::Kind(".".to_owned())),
    }
}

/// Writes one file; nothing is seen of it before it is whole.
fn write(entry: &mut impl Read, size: u64, path: &Path) -> Result<(), UploadError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut file = NamedTempFile::new_in(directory).map_err(UploadError::Write)?;
    let copied = io::copy(entry, &mut file).map_err(UploadError::Read)?;
    if copied < size {
        return Err(UploadError::Read(io::ErrorKind::UnexpectedEof.into()));
    }
    file.as_file().sync_all().map_err(UploadError::Write)?;
    let moved = file.persist(path);
    moved.map_err(|error| UploadError::Write(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 1000,
        files_max: 3,
    };

    /// An archive of one entry; its name is written as it is.
    fn one(name: &str, kind: EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut archive = Builder::new(Vec::new());
        archive.append(&header, content).unwrap();
        archive.into_inner().unwrap()
    }

    fn unpacked(archive: &[u8]) -> Result<Vec<String>, String> {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("artifacts");
        std::fs::create_dir(&directory).unwrap();
        let done = unpack(archive, &directory, &LIMITS);
        let beside = sys::file::entries(place.path()).unwrap();
        assert_eq!(beside, [directory.as_path()]);
        done.map_err(|error| error.to_string())?;
        let mut names: Vec<_> = sys::file::entries(&directory)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    #[test]
    fn files_at_any_depth_are_unpacked() {
        let mut archive = Builder::new(Vec::new());
        let long = format!("{}/{}.tar.gz", "deep".repeat(30), "x".repeat(150));
        for name in ["./upload/bindist/a.deb", "b.txt", &long] {
            let mut header = Header::new_gnu();
            header.set_size(3);
            archive.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        let all = unpacked(&archive.into_inner().unwrap()).unwrap();
        assert_eq!(
            all,
            ["a.deb", "b.txt", &format!("{}.tar.gz", "x".repeat(150))]
        );
        let mut archive = Builder::new(Vec::new());
        archive
            .append_pax_extensions([("mtime", &b"1.5"[..]), ("path", b"upload/c.deb")])
            .unwrap();
        let mut header = Header::new_ustar();
        header.set_size(1);
        archive
            .append_data(&mut header, "short", &b"c"[..])
            .unwrap();
        let all = unpacked(&archive.into_inner().unwrap()).unwrap();
        assert_eq!(all, ["c.deb"]);
        assert_eq!(
            unpacked(&one("upload/", EntryType::Directory, b"")),
            Ok(vec![])
        );
    }

    #[test]
    fn names_of_all_package_formats_are_unpacked() {
        let longest = "\u{fc}".repeat(127);
        let names = [
            "foo-1.0^20240101git-1.fc40.x86_64.rpm",
            "My Setup (x86, 64 bit) 100%.exe",
            longest.as_str(),
        ];
        let mut archive = Builder::new(Vec::new());
        for name in names {
            let mut header = Header::new_gnu();
            header.set_size(1);
            let path = format!("upload/a directory/{name}");
            archive.append_data(&mut header, path, &b"x"[..]).unwrap();
        }
        let mut expected = names.map(str::to_owned);
        expected.sort();
        let unpacked = unpacked(&archive.into_inner().unwrap());
        assert_eq!(unpacked.unwrap(), expected);
    }

    #[test]
    fn forbidden_entries_are_refused() {
        use EntryType::{Block, Char, Fifo, GNULongName, GNUSparse, Link, Regular, Symlink};
        for kind in [Symlink, Link, Char, Block, Fifo, GNUSparse] {
            let error = unpacked(&one("a/x", kind, b"")).unwrap_err();
            assert_eq!(error, "x is neither a file nor a directory");
        }
        for name in [
            "../x", "/etc/x", "a/../x", "..", "a//x", ".x", "a/.x/y", ".",
        ] {
            let error = unpacked(&one(name, Regular, b"x")).unwrap_err();
            assert!(
                error.contains("cannot be") || name == ".",
                "{name}: {error}"
            );
        }
        for name in RESERVED_ARTIFACTS {
            let error = unpacked(&one(&format!("upload/{name}"), Regular, b"x")).unwrap_err();
            assert_eq!(error, format!("{name} is reserved for a file of the host"));
        }
        let error = unpacked(&one("x", Regular, &[7; 1001])).unwrap_err();
        assert_eq!(error, "it holds more than 1000 bytes in 3 files");
        let error = unpacked(&one("x", GNULongName, &b"x".repeat(20_000))).unwrap_err();
        assert_eq!(error, "the name of a file is too long or not UTF-8");
        let error = unpacked(&one("x", Regular, &[7; 900])[..1000]).unwrap_err();
        assert!(
            error.starts_with("it is not a readable tar archive"),
            "{error}"
        );
        unpacked(b"no archive at all, and not even as long as one").unwrap_err();
    }

    #[test]
    fn duplicate_names_and_too_many_files_are_refused() {
        let archive = |names: &[&str]| {
            let mut archive = Builder::new(Vec::new());
            for name in names {
                let mut header = Header::new_ustar();
                header.set_size(1);
                archive.append_data(&mut header, name, &b"x"[..]).unwrap();
            }
            archive.into_inner().unwrap()
        };
        let twice = unpacked(&archive(&["a/x", "b/x"])).unwrap_err();
        assert_eq!(twice, "it holds two files x");
        let many = unpacked(&archive(&["1", "2", "3", "4"])).unwrap_err();
        assert_eq!(many, "it holds more than 1000 bytes in 3 files");
    }
}
