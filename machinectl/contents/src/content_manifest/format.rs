//! The text format of content manifests.
//!
//! One line for each file, directory and link, sorted by name:
//! `<mode> <owner> <group> <size> <content> <device> <attributes> <name>`. In a name, `%`, blanks
//! and bytes that are not printable ASCII are written as `%xx`. A missing content, device or
//! attribute is `-`.
//!
//! The content of a link is the hash of its target. That of a file is the hashes of its blocks of
//! [`BLOCK`] bytes, as `<number>=<hash>`, separated by commas; blocks of zeros are left out. A
//! device is `<major>:<minor>`. Attributes are `<name>=<hash>`, separated by commas; `=` and `,` in
//! their names are written as `%xx`. Hashes are BLAKE3, in hexadecimal digits.
//!
//! Formats 1 and 2 have one hash for a whole file, and format 1 lacks `<device>` and
//! `<attributes>`. Both are still read, but no longer written.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use blake3::Hash;

/// The length of a block of a file, in bytes. The last one may be shorter.
pub const BLOCK: u64 = 1 << 20;
/// The start of the first line, before the number of the format.
const HEAD: &str = "buildhost contents ";
/// The characters that separate attributes.
const SEPARATORS: &[u8] = b"=,";

/// A version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// Names, types, modes, owners, link targets and content.
    One = 1,
    /// Also device numbers and extended attributes with capabilities and ACLs.
    Two = 2,
    /// Hashes of blocks instead of one of a whole file, so that a change costs what it changes.
    Three = 3,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u8).fmt(f)
    }
}

/// The records of all entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentManifest {
    /// The format, which determines the covered properties.
    pub format: Format,
    /// The records by path, relative to the directory.
    pub records: BTreeMap<Vec<u8>, FileRecord>,
}

/// The record of a file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRecord {
    /// The file type and the permissions.
    pub mode: u32,
    /// The user ID of the owner.
    pub owner: u32,
    /// The group ID.
    pub group: u32,
    /// The size of a file in bytes; 0 for other entries.
    pub size: u64,
    /// The content of a file or link.
    pub content: FileContent,
    /// The major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The hashes of the values of extended attributes, by name.
    pub attributes: BTreeMap<Vec<u8>, Hash>,
}

/// The hashes of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// That of an entry without content: a directory, device, pipe or socket.
    None,
    /// The hash of a link's target; in formats 1 and 2 also of a whole file.
    Whole(Hash),
    /// The hashes of a file's blocks that are not all zeros, by their numbers in ascending order.
    Blocks(Vec<(u64, Hash)>),
}

/// The parser's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The number of the first invalid line.
    #[error("line {0} is not a line of a content manifest")]
    Line(usize),
    /// The number of a format of a later version.
    #[error("it has format {0}, which only a later version of buildhost can read")]
    Later(u32),
}

impl ContentManifest {
    /// Returns a manifest without records.
    pub fn new(format: Format) -> Self {
        let records = BTreeMap::new();
        Self { format, records }
    }

    /// Removes what an older format does not cover, so that a manifest of it can be compared.
    pub fn reduce_to(&mut self, format: Format) {
        if format < Format::Two {
            for record in self.records.values_mut() {
                record.device = None;
                record.attributes.clear();
            }
        }
        self.format = self.format.min(format);
    }

    /// Returns the text of the manifest.
    pub fn print(&self) -> String {
        let mut text = format!("{HEAD}{}\n", self.format);
        for (name, record) in &self.records {
            let FileRecord {
                mode,
                owner,
                group,
                size,
                ..
            } = record;
            let _ = write!(text, "{mode:o} {owner} {group} {size} ");
            print_content(&record.content, &mut text);
            text.push(' ');
            if self.format >= Format::Two {
                match record.device {
                    Some((major, minor)) => _ = write!(text, "{major}:{minor} "),
                    None => text.push_str("- "),
                }
                let attributes = record.attributes.iter();
                print_hashes(
                    attributes.map(|(it, hash)| (escape(it, SEPARATORS), hash)),
                    &mut text,
                );
                text.push(' ');
            }
            text.push_str(&escape(name, b""));
            text.push('\n');
        }
        text
    }

    /// Parses the text of a manifest.
    ///
    /// # Errors
    /// A line is invalid, or the format is not known.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut lines = text.lines();
        let number = lines.next().and_then(|line| line.strip_prefix(HEAD));
        let number = number.and_then(|number| number.parse().ok());
        let mut manifest = Self::new(match number {
            Some(1) => Format::One,
            Some(2) => Format::Two,
            Some(3) => Format::Three,
            Some(later @ 4..) => return Err(FormatError::Later(later)),
            _ => return Err(FormatError::Line(1)),
        });
        for (index, line) in lines.enumerate() {
            let (name, record) =
                parse_line(manifest.format, line).ok_or(FormatError::Line(index + 2))?;
            manifest.records.insert(name, record);
        }
        Ok(manifest)
    }
}

fn print_content(content: &FileContent, text: &mut String) {
    match content {
        FileContent::None => text.push('-'),
        FileContent::Whole(hash) => text.push_str(&hash.to_hex()),
        FileContent::Blocks(blocks) => {
            print_hashes(blocks.iter().map(|(number, hash)| (number, hash)), text);
        }
    }
}

/// Prints hashes with their keys; `-` without any.
fn print_hashes<'a, K: fmt::Display>(
    hashes: impl Iterator<Item = (K, &'a Hash)>,
    text: &mut String,
) {
    let start = text.len();
    for (key, hash) in hashes {
        let comma = if text.len() == start { "" } else { "," };
        let _ = write!(text, "{comma}{key}={}", hash.to_hex());
    }
    if text.len() == start {
        text.push('-');
    }
}

fn parse_line(format: Format, line: &str) -> Option<(Vec<u8>, FileRecord)> {
    let mut fields = line.split(' ');
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let owner = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let size = fields.next()?.parse().ok()?;
    let content = parse_content(format, mode, size, fields.next()?)?;
    let (mut device, mut attributes) = (None, BTreeMap::new());
    if format >= Format::Two {
        let field = fields.next()?;
        if field != "-" {
            device = Some(parse_device(field)?);
        }
        attributes = parse_hashes(fields.next()?, unescape)?
            .into_iter()
            .collect();
    }
    let record = FileRecord {
        mode,
        owner,
        group,
        size,
        content,
        device,
        attributes,
    };
    let name = unescape(fields.next()?)?;
    fields.next().is_none().then_some((name, record))
}

fn parse_content(format: Format, mode: u32, size: u64, field: &str) -> Option<FileContent> {
    if format >= Format::Three && is_file(mode) {
        let blocks = parse_hashes(field, |number| number.parse().ok())?;
        let is_ascending = blocks.is_sorted_by(|(one, _), (next, _)| one < next);
        let is_inside = blocks
            .last()
            .is_none_or(|(last, _)| *last < size.div_ceil(BLOCK));
        return (is_ascending && is_inside).then_some(FileContent::Blocks(blocks));
    }
    match field {
        "-" => Some(FileContent::None),
        hash => Hash::from_hex(hash).ok().map(FileContent::Whole),
    }
}

/// Returns true for the mode of a regular file.
pub(super) fn is_file(mode: u32) -> bool {
    rustix::fs::FileType::from_raw_mode(mode).is_file()
}

fn parse_device(field: &str) -> Option<(u32, u32)> {
    let (major, minor) = field.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Parses what [`print_hashes`] prints.
fn parse_hashes<K>(field: &str, parse_key: impl Fn(&str) -> Option<K>) -> Option<Vec<(K, Hash)>> {
    if field == "-" {
        return Some(Vec::new());
    }
    let parse = |pair: &str| {
        let (key, hash) = pair.split_once('=')?;
        Some((parse_key(key)?, Hash::from_hex(hash).ok()?))
    };
    field.split(',').map(parse).collect()
}

/// Writes a name in printable ASCII, without blanks and without these other characters.
pub(super) fn escape(name: &[u8], reserved: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        if byte.is_ascii_graphic() && *byte != b'%' && !reserved.contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = str::from_utf8(&digits).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: u32 = 0o100_644;
    const LINK: u32 = 0o120_777;

    fn manifest() -> impl Strategy<Value = ContentManifest> {
        let name = || prop::collection::vec(any::<u8>(), 1..12);
        let hash = || any::<[u8; 32]>().prop_map(Hash::from_bytes);
        let blocks = prop::collection::btree_map(0..(u64::MAX / BLOCK), hash(), 0..3);
        let details = (
            prop::option::of(any::<(u32, u32)>()),
            prop::collection::btree_map(name(), hash(), 0..3),
        );
        let record = (any::<(bool, u32, u32)>(), blocks, hash(), details).prop_map(
            |((is_file, owner, group), blocks, target, (device, attributes))| FileRecord {
                mode: if is_file { FILE } else { LINK },
                owner,
                group,
                size: if is_file { u64::MAX } else { 0 },
                content: if is_file {
                    FileContent::Blocks(blocks.into_iter().collect())
                } else {
                    FileContent::Whole(target)
                },
                device,
                attributes,
            },
        );
        let records = prop::collection::btree_map(name(), record, 0..6);
        (1..=3_usize, records).prop_map(|(format, mut records)| {
            let format = [Format::One, Format::Two, Format::Three][format - 1];
            for record in records.values_mut() {
                if format < Format::Three && record.mode == FILE {
                    record.content = FileContent::Whole(blake3::hash(b""));
                }
                if format < Format::Two {
                    (record.device, record.attributes) = (None, BTreeMap::new());
                }
            }
            ContentManifest { format, records }
        })
    }

    proptest! {
        #[test]
        fn a_printed_manifest_is_parsed_to_itself(manifest in manifest()) {
            prop_assert_eq!(ContentManifest::parse(&manifest.print()), Ok(manifest));
        }

        #[test]
        fn arbitrary_text_does_not_panic(
            text in "(buildhost contents [123]\n)?[0-9a-f%:=, \n-]{0,80}",
        ) {
            let _ = ContentManifest::parse(&text);
        }
    }

    #[test]
    fn all_formats_are_read_and_later_ones_are_named() {
        let (a, b) = ("ab".repeat(32), "cd".repeat(32));
        for text in [
            format!("buildhost contents 1\n100644 0 0 1 {a} a%20b\n"),
            format!("buildhost contents 2\n20666 0 0 0 - 1:3 user.%2c={a},user.a={b} null\n"),
            format!(
                "buildhost contents 3\n100644 0 0 3145728 0={a},2={b} - - disk.img\n\
                 120777 0 0 0 {a} - - link\n100644 0 0 9 - - - zeros\n"
            ),
        ] {
            assert_eq!(ContentManifest::parse(&text).unwrap().print(), text);
        }
        assert_eq!(
            ContentManifest::parse("buildhost contents 4\n"),
            Err(FormatError::Later(4))
        );
        assert_eq!(
            ContentManifest::parse("buildhost contents\n"),
            Err(FormatError::Line(1))
        );
        for (format, line) in [
            (2, format!("100644 0 0 1 {a} a")),
            (1, format!("100644 0 0 1 {a} - - a")),
            (1, "100644 0 0 1 ab a".to_owned()),
            (2, "20666 0 0 0 - 1 - null".to_owned()),
            (2, "20666 0 0 0 - - user.a null".to_owned()),
            (3, format!("100644 0 0 1 {a} - - a")),
            // A block behind the end of the file, twice the same one, and not in order.
            (3, format!("100644 0 0 1048576 1={a} - - a")),
            (3, format!("100644 0 0 3145728 1={a},1={a} - - a")),
            (3, format!("100644 0 0 3145728 2={a},1={a} - - a")),
            (3, format!("120777 0 0 0 0={a} - - a")),
        ] {
            let text = format!("buildhost contents {format}\n{line}\n");
            assert_eq!(
                ContentManifest::parse(&text),
                Err(FormatError::Line(2)),
                "{text}"
            );
        }
    }
}
