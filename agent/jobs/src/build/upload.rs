//! Unpacks the files of a build that a worker has put in one archive.
//!
//! The archive comes from a guest: no name in it becomes a path, and it is read in order, so that
//! whatever sizes it states, memory holds one block of it. Forbidden entries are skipped and
//! reported; the others are unpacked.
//!
//! The archive of a build for a controller has directories for types and instances of uploads, each
//! of which becomes an archive of its own: see [`instances`].

pub(super) mod instances;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use config::task::RESERVED_ARTIFACTS;
use config::{FileName, MIB, NameError};
use tar::{Archive, Entry, EntryType, PaxExtensions};
use tempfile::NamedTempFile;

/// The longest of the entries that only tell the name of the next one.
const NAME_BYTES_MAX: u64 = 16 * 1024;
/// The number of forbidden entries after which an archive is not read any further.
const FAULTS_MAX: usize = 100;

/// The limits of an archive.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The size of all files together, in bytes.
    pub bytes_max: u64,
    /// The number of files.
    pub files_max: usize,
}

/// The reason for which an entry of an archive, or the rest of it, is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadFault {
    /// It is damaged or cut off.
    #[error("it is not a readable tar archive: {0}")]
    Read(io::Error),
    /// A name that no file of a build can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name that is not a text, or is too long to be read.
    #[error("the name of a file is too long or not UTF-8")]
    Text,
    /// A name that only the host may use.
    #[error("{0} is reserved for a file of the host")]
    Reserved(FileName),
    /// Something else than a file or a directory.
    #[error("{0} is neither a file nor a directory")]
    Kind(String),
    /// Two files would become one, or a file is also a directory.
    #[error("it holds two files {0}")]
    Twice(String),
    /// A file outside of the directories of instances.
    #[error("{0} is not below upload/TYPE/INSTANCE/")]
    Place(String),
    /// All files together are too large.
    #[error(
        "with {name}, it holds more than the {} MiB that the setting builds.artifacts_mib_max \
         allows",
        bytes_max.div_ceil(MIB)
    )]
    TooLarge {
        /// The first file that did not fit.
        name: FileName,
        /// The limit in bytes.
        bytes_max: u64,
    },
    /// There are too many files.
    #[error("it holds more than {0} files; pack them into archives")]
    TooManyFiles(usize),
}

impl UploadFault {
    /// Returns true if no entry after this one can be unpacked.
    fn is_last(&self) -> bool {
        matches!(self, Self::TooManyFiles(_))
    }
}

/// The places of the files of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One directory: each file has the last part of its path as its name.
    Flat,
    /// Directories of types with directories of instances: `upload/TYPE/INSTANCE/…`.
    Instances,
}

/// A reason for which no more entries are read.
enum Stop {
    /// The archive itself.
    Archive(UploadFault),
    /// The host.
    Host(io::Error),
}

impl From<UploadFault> for Stop {
    fn from(fault: UploadFault) -> Self {
        Self::Archive(fault)
    }
}

/// Distinguishes the errors of the archive from those of the disk that it lies on.
fn read_error(error: io::Error) -> Stop {
    if error.raw_os_error().is_some() {
        Stop::Host(error)
    } else {
        Stop::Archive(UploadFault::Read(error))
    }
}

/// Unpacks an archive into a directory of files, and returns the faults of what it has left
/// out. Files that are there under a name of the archive are replaced. All of it is on disk then.
///
/// # Errors
/// The disk of the host.
pub(super) fn unpack(
    archive: impl Read,
    directory: &Path,
    limits: &Limits,
) -> io::Result<Vec<UploadFault>> {
    let unpacking = Unpacking::new(directory, limits, Layout::Flat).run(archive)?;
    sys::trusted::open(directory)?.sync_all()?;
    Ok(unpacking.faults)
}

/// An archive that is being unpacked.
struct Unpacking<'a> {
    directory: &'a Path,
    limits: &'a Limits,
    layout: Layout,
    /// The bytes that may still be written.
    left: u64,
    /// The files, relative to the directory.
    files: BTreeSet<PathBuf>,
    /// The directories of the files, relative to the directory.
    directories: BTreeSet<PathBuf>,
    faults: Vec<UploadFault>,
}

impl<'a> Unpacking<'a> {
    fn new(directory: &'a Path, limits: &'a Limits, layout: Layout) -> Self {
        Self {
            directory,
            limits,
            layout,
            left: limits.bytes_max,
            files: BTreeSet::new(),
            directories: BTreeSet::new(),
            faults: Vec::new(),
        }
    }

    /// Unpacks an archive. The error is that of the host's disk.
    fn run(mut self, archive: impl Read) -> io::Result<Self> {
        match self.unpack(archive) {
            Ok(()) => {}
            Err(Stop::Archive(fault)) => self.faults.push(fault),
            Err(Stop::Host(error)) => return Err(error),
        }
        Ok(self)
    }

    fn unpack(&mut self, archive: impl Read) -> Result<(), Stop> {
        let mut archive = Archive::new(BufReader::new(archive));
        let mut told = None;
        for entry in archive.entries().map_err(read_error)?.raw(true) {
            let mut entry = entry.map_err(read_error)?;
            let kind = entry.header().entry_type();
            match kind {
                EntryType::XGlobalHeader => continue,
                EntryType::XHeader | EntryType::GNULongName => {
                    told = longer_name(&mut entry, kind)?.or(told);
                    continue;
                }
                _ => {}
            }
            let path = told
                .take()
                .unwrap_or_else(|| entry.path_bytes().into_owned());
            match self.destination(&path, kind, entry.size()) {
                Ok(Some(path)) => write(&mut entry, &path)?,
                Ok(None) => {}
                Err(fault) if fault.is_last() || self.faults.len() >= FAULTS_MAX => {
                    return Err(fault.into());
                }
                Err(fault) => self.faults.push(fault),
            }
        }
        Ok(())
    }

    /// Returns the path of a file and counts it; `None` for a directory.
    fn destination(
        &mut self,
        path: &[u8],
        kind: EntryType,
        size: u64,
    ) -> Result<Option<PathBuf>, UploadFault> {
        let Some((file, name)) = self.place(text(path)?, kind)? else {
            return Ok(None);
        };
        let limits = self.limits;
        let mut above = file.ancestors().skip(1);
        if self.files.contains(&file)
            || self.directories.contains(&file)
            || above.any(|directory| self.files.contains(directory))
        {
            return Err(UploadFault::Twice(file.to_string_lossy().into_owned()));
        }
        if self.files.len() >= limits.files_max {
            return Err(UploadFault::TooManyFiles(limits.files_max));
        }
        if size > self.left {
            let bytes_max = limits.bytes_max;
            return Err(UploadFault::TooLarge { name, bytes_max });
        }
        self.left -= size;
        let path = self.directory.join(&file);
        let above = file.ancestors().skip(1).map(Path::to_owned);
        self.directories.extend(above);
        self.files.insert(file);
        Ok(Some(path))
    }

    /// Returns the place of a file below the directory, and its name; `None` for a directory.
    fn place(
        &self,
        path: &str,
        kind: EntryType,
    ) -> Result<Option<(PathBuf, FileName)>, UploadFault> {
        let Some((above, name)) = file_name(path, kind)? else {
            return Ok(None);
        };
        let file = match (self.layout, above.as_slice()) {
            (Layout::Flat, _) => PathBuf::from(name.as_str()),
            (Layout::Instances, [first, below @ ..])
                if first.as_str() == "upload" && below.len() >= 2 =>
            {
                below.iter().chain([&name]).map(FileName::as_str).collect()
            }
            (Layout::Instances, _) => return Err(UploadFault::Place(path.to_owned())),
        };
        Ok(Some((file, name)))
    }
}

/// Returns the name that this entry gives to the next one.
fn longer_name(entry: &mut Entry<impl Read>, kind: EntryType) -> Result<Option<Vec<u8>>, Stop> {
    let mut bytes = Vec::new();
    let mut content = entry.take(NAME_BYTES_MAX + 1);
    content.read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u64 > NAME_BYTES_MAX {
        return Err(UploadFault::Text.into());
    }
    if kind == EntryType::GNULongName {
        let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(Some(name.to_owned()));
    }
    for extension in PaxExtensions::new(&bytes) {
        let extension = extension.map_err(read_error)?;
        if extension.key_bytes() == b"path" {
            return Ok(Some(extension.value_bytes().to_owned()));
        }
    }
    Ok(None)
}

fn text(bytes: &[u8]) -> Result<&str, UploadFault> {
    std::str::from_utf8(bytes).map_err(|_| UploadFault::Text)
}

/// Returns the directories above a file of the archive, and its name; `None` for a directory. All
/// parts of its path must be names.
fn file_name(
    path: &str,
    kind: EntryType,
) -> Result<Option<(Vec<FileName>, FileName)>, UploadFault> {
    let parts = path.trim_end_matches('/').split('/');
    let mut names = Vec::new();
    for part in parts.filter(|part| *part != ".") {
        names.push(part.parse::<FileName>()?);
    }
    match (kind, names.pop()) {
        (EntryType::Directory, _) => Ok(None),
        (EntryType::Regular, Some(name)) if RESERVED_ARTIFACTS.contains(&name.as_str()) => {
            Err(UploadFault::Reserved(name))
        }
        (EntryType::Regular, Some(name)) => Ok(Some((names, name))),
        (_, Some(name)) => Err(UploadFault::Kind(name.to_string())),
        (_, None) => Err(UploadFault::Kind(".".to_owned())),
    }
}

/// Writes one file; nothing is seen of it before it is whole.
fn write(entry: &mut Entry<impl Read>, path: &Path) -> Result<(), Stop> {
    let size = entry.size();
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(Stop::Host)?;
    let mut file = NamedTempFile::new_in(directory).map_err(Stop::Host)?;
    // Errors of both sides; those of the archive have no number.
    let copied = io::copy(entry, &mut file).map_err(read_error)?;
    if copied < size {
        return Err(read_error(io::ErrorKind::UnexpectedEof.into()));
    }
    file.as_file().sync_all().map_err(Stop::Host)?;
    let moved = file.persist(path);
    moved.map_err(|error| Stop::Host(error.error))?;
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

    /// Returns the names of the unpacked files, or the first fault.
    fn unpacked(archive: &[u8]) -> Result<Vec<String>, String> {
        let (names, faults) = unpacked_with_faults(archive);
        faults.into_iter().next().map_or(Ok(names), Err)
    }

    fn unpacked_with_faults(archive: &[u8]) -> (Vec<String>, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("artifacts");
        std::fs::create_dir(&directory).unwrap();
        let faults = unpack(archive, &directory, &LIMITS).unwrap();
        let beside = sys::file::entries(place.path()).unwrap();
        assert_eq!(beside, [directory.as_path()]);
        let mut names: Vec<_> = sys::file::entries(&directory)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        let faults = faults.iter().map(ToString::to_string).collect();
        (names, faults)
    }

    /// An archive of files with these names and sizes.
    fn archive(files: &[(&str, u64)]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, size) in files {
            let mut header = Header::new_ustar();
            header.set_size(*size);
            header.set_entry_type(EntryType::Regular);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            archive.append(&header, io::repeat(7).take(*size)).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn files_beside_forbidden_entries_are_kept() {
        let files = [
            ("a/1.deb", 1),
            ("a/b\tc", 1),
            ("b/1.deb", 1),
            ("huge", 1000),
            ("2.deb", 1),
        ];
        let (names, faults) = unpacked_with_faults(&archive(&files));
        assert_eq!(names, ["1.deb", "2.deb"]);
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[1], "it holds two files 1.deb");
        assert_eq!(
            faults[2],
            "with huge, it holds more than the 1 MiB that the setting builds.artifacts_mib_max \
             allows"
        );
        let cut = &archive(&[("1.deb", 1), ("2.deb", 600)])[..1600];
        let (names, faults) = unpacked_with_faults(cut);
        assert_eq!(names, ["1.deb"]);
        assert!(
            faults[0].starts_with("it is not a readable tar"),
            "{faults:?}"
        );
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
        assert!(error.contains("builds.artifacts_mib_max"), "{error}");
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
        let twice = unpacked(&archive(&[("a/x", 1), ("b/x", 1)])).unwrap_err();
        assert_eq!(twice, "it holds two files x");
        let many = unpacked(&archive(&["1", "2", "3", "4"].map(|name| (name, 1)))).unwrap_err();
        assert_eq!(many, "it holds more than 3 files; pack them into archives");
    }
}
