//! The text format of content manifests.
//!
//! One line for each file, directory and link, sorted by name:
//! `<mode> <owner> <group> <size> <hash> <device> <attributes> <name>`. In a name, `%`, blanks
//! and bytes that are not printable ASCII are written as `%xx`. A missing hash, device or
//! attribute is `-`. A device is `<major>:<minor>`. Attributes are `<name>=<hash>`, separated by
//! commas; `=` and `,` in their names are written as `%xx`.
//!
//! Format 1 lacks `<device>` and `<attributes>`. It is still read, but no longer written.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

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
    /// The BLAKE3 hash of a file's content or a link's target, in hexadecimal digits.
    pub hash: Option<String>,
    /// The major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The BLAKE3 hashes of the values of extended attributes, by name.
    pub attributes: BTreeMap<Vec<u8>, String>,
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
            let hash = record.hash.as_deref().unwrap_or("-");
            let _ = write!(text, "{mode:o} {owner} {group} {size} {hash} ");
            if self.format >= Format::Two {
                match record.device {
                    Some((major, minor)) => _ = write!(text, "{major}:{minor} "),
                    None => text.push_str("- "),
                }
                print_attributes(&record.attributes, &mut text);
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
            Some(later @ 3..) => return Err(FormatError::Later(later)),
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

fn print_attributes(attributes: &BTreeMap<Vec<u8>, String>, text: &mut String) {
    if attributes.is_empty() {
        text.push('-');
    }
    for (index, (name, hash)) in attributes.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{}={hash}", escape(name, SEPARATORS));
    }
}

fn parse_line(format: Format, line: &str) -> Option<(Vec<u8>, FileRecord)> {
    let mut fields = line.split(' ');
    let mut record = FileRecord {
        mode: u32::from_str_radix(fields.next()?, 8).ok()?,
        owner: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        hash: Some(fields.next()?.to_owned()).filter(|hash| hash != "-"),
        device: None,
        attributes: BTreeMap::new(),
    };
    if format >= Format::Two {
        let (device, attributes) = (fields.next()?, fields.next()?);
        if device != "-" {
            record.device = Some(parse_device(device)?);
        }
        if attributes != "-" {
            record.attributes = parse_attributes(attributes)?;
        }
    }
    let name = unescape(fields.next()?)?;
    fields.next().is_none().then_some((name, record))
}

fn parse_device(field: &str) -> Option<(u32, u32)> {
    let (major, minor) = field.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn parse_attributes(field: &str) -> Option<BTreeMap<Vec<u8>, String>> {
    let parse = |pair: &str| {
        let (name, hash) = pair.split_once('=')?;
        Some((unescape(name)?, hash.to_owned()))
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

    fn manifest() -> impl Strategy<Value = ContentManifest> {
        let name = || prop::collection::vec(any::<u8>(), 1..12);
        let hash = || "[0-9a-f]{8}";
        let details = (
            prop::option::of(any::<(u32, u32)>()),
            prop::collection::btree_map(name(), hash(), 0..3),
        );
        let fields = (
            any::<[u32; 3]>(),
            any::<u64>(),
            prop::option::of(hash()),
            details,
        );
        let record = fields.prop_map(|([mode, owner, group], size, hash, (device, attributes))| {
            FileRecord {
                mode,
                owner,
                group,
                size,
                hash,
                device,
                attributes,
            }
        });
        let records = prop::collection::btree_map(name(), record, 0..6);
        (any::<bool>(), records).prop_map(|(is_old, mut records)| {
            for record in records.values_mut().filter(|_| is_old) {
                (record.device, record.attributes) = (None, BTreeMap::new());
            }
            let format = if is_old { Format::One } else { Format::Two };
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
            text in "(buildhost contents [12]\n)?[0-9a-f%:=, \n-]{0,80}",
        ) {
            let _ = ContentManifest::parse(&text);
        }
    }

    #[test]
    fn both_formats_are_read_and_later_ones_are_named() {
        let one = "buildhost contents 1\n100644 0 0 1 ab a%20b\n";
        let two = "buildhost contents 2\n20666 0 0 0 - 1:3 user.%2c=ab,user.a=cd null\n";
        for text in [one, two] {
            assert_eq!(ContentManifest::parse(text).unwrap().print(), text);
        }
        for (text, error) in [
            ("buildhost contents 3\n", FormatError::Later(3)),
            ("buildhost contents\n", FormatError::Line(1)),
            (
                "buildhost contents 2\n100644 0 0 1 ab a\n",
                FormatError::Line(2),
            ),
            (
                "buildhost contents 1\n100644 0 0 1 ab - - a\n",
                FormatError::Line(2),
            ),
            (
                "buildhost contents 2\n20666 0 0 0 - 1 - null\n",
                FormatError::Line(2),
            ),
            (
                "buildhost contents 2\n20666 0 0 0 - - user.a null\n",
                FormatError::Line(2),
            ),
        ] {
            assert_eq!(ContentManifest::parse(text), Err(error), "{text}");
        }
    }
}
