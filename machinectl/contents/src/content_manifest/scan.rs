//! The actual content of a directory.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use blake3::Hash;
use rustix::thread::{CapabilitySet, capabilities};
use sys::attributes::AttributeReader;

use super::blocks::hash_blocks;
use super::{ATTRIBUTES, ContentManifest, FileContent, FileRecord, Format};
use btrfs::Result;
use btrfs::error::IoContext;

/// The number of bytes that are hashed at once, enough to occupy all processors.
const CHUNK: u64 = 8 << 20;
/// The start of the names of attributes that only administrators can see.
const TRUSTED: &[u8] = b"trusted.";

/// Returns the properties of all entries of a directory, except those with the excluded names in
/// its top, that a format covers.
pub(super) fn scan(directory: &Path, format: Format, excluded: &[&str]) -> Result<ContentManifest> {
    let mut manifest = ContentManifest::new(format);
    let mut scanner = Scanner::new(directory, format);
    scanner.add(Path::new("."), excluded, &mut manifest)?;
    Ok(manifest)
}

/// Returns true if this process can see attributes of the namespace `trusted`. The kernel hides
/// them from others.
pub(super) fn sees_trusted_attributes() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

impl ContentManifest {
    /// Removes attributes that this process cannot compare.
    pub(super) fn forget_trusted_attributes(&mut self) {
        for record in self.records.values_mut() {
            record
                .attributes
                .retain(|name, _| !name.starts_with(TRUSTED));
        }
    }
}

/// Returns true if manifests cover an attribute; see [`ATTRIBUTES`].
fn is_covered(attribute: &[u8]) -> bool {
    ATTRIBUTES
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => attribute.starts_with(start.as_bytes()),
            None => attribute == pattern.as_bytes(),
        })
}

/// A reader of the properties of entries.
pub(super) struct Scanner<'a> {
    root: &'a Path,
    format: Format,
    attributes: AttributeReader,
}

impl<'a> Scanner<'a> {
    /// Returns a reader of the entries of a directory.
    pub(super) fn new(root: &'a Path, format: Format) -> Self {
        Self {
            root,
            format,
            attributes: AttributeReader::default(),
        }
    }

    /// Adds an entry and, for a directory, everything below it.
    fn add(
        &mut self,
        name: &Path,
        excluded: &[&str],
        manifest: &mut ContentManifest,
    ) -> Result<()> {
        let path = self.root.join(name);
        let data = path.symlink_metadata().context("inspect", &path)?;
        let record = self.record(name, &data, |file, size| {
            hash_blocks(file, size, 0..u64::MAX)
        })?;
        let key = name.as_os_str().as_bytes().to_vec();
        manifest.records.insert(key, record);
        if !data.is_dir() {
            return Ok(());
        }
        let is_root = name == Path::new(".");
        for entry in fs::read_dir(&path).context("list", &path)? {
            let entry = entry.context("list", &path)?.file_name();
            if !is_root {
                self.add(&name.join(entry), &[], manifest)?;
            } else if !excluded.iter().any(|name| entry == *name) {
                self.add(Path::new(&entry), &[], manifest)?;
            }
        }
        Ok(())
    }

    /// Returns the properties of an entry. `hash` returns the hashes of the blocks of a file with
    /// this size.
    pub(super) fn record(
        &mut self,
        name: &Path,
        data: &Metadata,
        hash: impl FnOnce(&File, u64) -> io::Result<Vec<(u64, Hash)>>,
    ) -> Result<FileRecord> {
        let path = &self.root.join(name);
        let kind = data.file_type();
        let file = if kind.is_file() {
            Some(sys::untrusted::open(self.root, name).context("open", path)?)
        } else {
            None
        };
        let is_extended = self.format >= Format::Two;
        let attributes = if is_extended {
            self.attributes(file.as_ref(), path)
                .context("read the attributes of", path)?
        } else {
            BTreeMap::new()
        };
        let content = match file {
            Some(file) if self.format < Format::Three => {
                FileContent::Whole(hash_file(file).context("read", path)?)
            }
            Some(file) => FileContent::Blocks(hash(&file, data.len()).context("read", path)?),
            None if kind.is_symlink() => {
                let target = fs::read_link(path).context("read", path)?;
                FileContent::Whole(blake3::hash(target.as_os_str().as_bytes()))
            }
            None => FileContent::None,
        };
        Ok(FileRecord {
            mode: data.mode(),
            owner: data.uid(),
            group: data.gid(),
            size: if kind.is_file() { data.len() } else { 0 },
            content,
            device: device(kind, data.rdev()).filter(|_| is_extended),
            attributes,
        })
    }

    /// Returns the hashes of the values of all covered attributes.
    fn attributes(
        &mut self,
        file: Option<&File>,
        path: &Path,
    ) -> io::Result<BTreeMap<Vec<u8>, Hash>> {
        let mut attributes = BTreeMap::new();
        let found = |name: &[u8], value: &[u8]| {
            attributes.insert(name.to_vec(), blake3::hash(value));
        };
        match file {
            Some(file) => self.attributes.read_file(file, is_covered, found)?,
            None => self.attributes.read_path(path, is_covered, found)?,
        }
        Ok(attributes)
    }
}

fn device(kind: FileType, number: u64) -> Option<(u32, u32)> {
    (kind.is_char_device() || kind.is_block_device())
        .then(|| (rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Returns the hash of a file's content, computed on all processors.
fn hash_file(mut file: File) -> io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        if file.by_ref().take(CHUNK).read_to_end(&mut chunk)? == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update_rayon(&chunk);
    }
}
