//! The content manifest of a revision, from that of its parent and the stream of what differs.
//! Only what the stream names is read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use blake3::Hash;

use super::blocks::hash_blocks;
use super::format::BLOCK;
use super::scan::Scanner;
use super::{ContentManifest, FILE, FileContent, FileRecord, Format};
use btrfs::Result;
use btrfs::error::IoContext;
use btrfs::stream::{self, Command, Effect};

/// The path of the top directory in manifests; in streams it is empty.
const TOP: &[u8] = b".";

/// A parent's content manifest of the latest format, to which the commands of a stream are applied.
#[derive(Debug)]
pub struct ManifestUpdate {
    manifest: ContentManifest,
    /// The entries whose properties may have changed, with the changed ranges of their content in
    /// blocks.
    changed: BTreeMap<Vec<u8>, Vec<Range<u64>>>,
}

impl ManifestUpdate {
    /// Returns an update of a parent's manifest; `None` if it has an older format.
    pub(super) fn of(manifest: ContentManifest) -> Option<Self> {
        let changed = BTreeMap::new();
        (manifest.format == Format::Three).then_some(Self { manifest, changed })
    }

    /// Records what a command of the stream changes.
    pub fn apply(&mut self, command: &Command<'_>) {
        let path = if command.path.is_empty() {
            TOP
        } else {
            command.path
        };
        let records = &mut self.manifest.records;
        match command.effect {
            Effect::Frame => {}
            Effect::Create | Effect::CreateLink => {
                self.remove(path);
                self.create(path, NEW);
            }
            Effect::HardLink => {
                let linked = records.get(command.path_link).cloned();
                self.remove(path);
                self.create(path, linked.unwrap_or(NEW));
            }
            Effect::Rename => {
                stream::rename(records, path, command.path_to);
                stream::rename(&mut self.changed, path, command.path_to);
            }
            Effect::Remove => self.remove(path),
            Effect::ChangeEntry | Effect::ChangeFile | Effect::Clone => {
                let changed = self.changed.entry(path.to_owned()).or_default();
                changed.extend(command.changed_range().map(|bytes| blocks(&bytes)));
                merge_last(changed);
            }
        }
    }

    fn create(&mut self, path: &[u8], record: FileRecord) {
        self.manifest.records.insert(path.to_owned(), record);
        self.changed
            .insert(path.to_owned(), std::iter::once(0..u64::MAX).collect());
    }

    fn remove(&mut self, path: &[u8]) {
        stream::remove(&mut self.manifest.records, path);
        stream::remove(&mut self.changed, path);
    }

    /// Returns the manifest of a directory with the parent's content and all changes of the stream.
    ///
    /// # Errors
    /// An entry cannot be read, or the directory is not what the stream makes.
    pub fn finish(mut self, directory: &Path) -> Result<ContentManifest> {
        self.remove(FILE.as_bytes());
        let mut scanner = Scanner::new(directory, Format::Three);
        let mut linked = BTreeSet::new();
        for (name, changed) in &self.changed {
            let Some(record) = self.manifest.records.get_mut(name) else {
                continue;
            };
            let name = as_path(name);
            let path = directory.join(name);
            let data = path.symlink_metadata().context("inspect", &path)?;
            if !data.is_dir() && data.nlink() > 1 {
                linked.insert(data.ino());
            }
            *record = scanner.record(name, &data, |file, size| {
                hash_changed(record, changed, file, size)
            })?;
        }
        if !linked.is_empty() {
            self.read_links(directory, &linked, &mut scanner)?;
        }
        Ok(self.manifest)
    }

    /// Reads all files with one of these inode numbers. A stream names only one path of a file.
    fn read_links(
        &mut self,
        directory: &Path,
        inodes: &BTreeSet<u64>,
        scanner: &mut Scanner<'_>,
    ) -> Result<()> {
        for (name, record) in &mut self.manifest.records {
            let name = as_path(name);
            let path = directory.join(name);
            let data = path.symlink_metadata().context("inspect", &path)?;
            if !data.is_dir() && inodes.contains(&data.ino()) {
                *record = scanner.record(name, &data, |file, size| {
                    hash_blocks(file, size, 0..u64::MAX)
                })?;
            }
        }
        Ok(())
    }
}

/// The record of a new entry, before it is read.
const NEW: FileRecord = FileRecord {
    mode: 0,
    owner: 0,
    group: 0,
    size: 0,
    content: FileContent::None,
    device: None,
    attributes: BTreeMap::new(),
};

fn as_path(name: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name))
}

/// Returns the blocks that a range of bytes touches.
fn blocks(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / BLOCK..bytes.end.div_ceil(BLOCK)
}

/// Merges the last range with the one before, which it usually continues.
fn merge_last(ranges: &mut Vec<Range<u64>>) {
    if let [.., before, last] = ranges.as_mut_slice()
        && before.start <= last.start
        && last.start <= before.end
    {
        before.end = before.end.max(last.end);
        ranges.pop();
    }
}

/// Returns the hashes of a file's blocks. Only changed ones are read; the others are in the record
/// of the parent's file.
fn hash_changed(
    parent: &FileRecord,
    changed: &[Range<u64>],
    file: &File,
    size: u64,
) -> io::Result<Vec<(u64, Hash)>> {
    let FileContent::Blocks(known) = &parent.content else {
        return hash_blocks(file, size, 0..u64::MAX);
    };
    let end = size.div_ceil(BLOCK);
    let known = between(known, 0..end);
    let mut changed = changed.to_vec();
    if parent.size != size {
        // The last block of each size may be shorter than a block.
        changed.extend([parent.size, size].map(|size| blocks(&(size..size.saturating_add(1)))));
    }
    changed.sort_by_key(|range| range.start);
    let mut hashes = Vec::new();
    let mut next = 0;
    for range in changed {
        let start = range.start.max(next);
        hashes.extend(between(known, next..start));
        if start < range.end {
            hashes.extend(hash_blocks(file, size, start..range.end)?);
        }
        next = start.max(range.end);
    }
    hashes.extend(between(known, next..end));
    Ok(hashes)
}

/// Returns the known hashes of a range of blocks.
fn between(known: &[(u64, Hash)], range: Range<u64>) -> &[(u64, Hash)] {
    let at = |number| known.partition_point(|(it, _)| *it < number);
    let (start, end) = (at(range.start), at(range.end));
    known.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
