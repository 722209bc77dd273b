//! The text format of content manifests, and their comparison.
//!
//! One line for each file, directory and link, sorted by name:
//! `<mode> <owner> <group> <size> <hash> <name>`. In a name, `%`, blanks and bytes that are
//! not printable ASCII are written as `%xx`. A missing hash is `-`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

/// The first line, which names the version of the format.
const HEAD: &str = "buildhost contents 1";

/// The records of all entries of a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContentManifest {
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
}

/// A difference between two manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path, escaped as in the format.
    pub name: String,
    /// The difference, as the predicate of a sentence.
    pub predicate: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.predicate)
    }
}

/// The parser's error; the number of the first invalid line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not a line of a content manifest")]
pub struct FormatError(pub usize);

impl ContentManifest {
    /// Returns the text of the manifest.
    pub fn print(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (name, record) in &self.records {
            let hash = record.hash.as_deref().unwrap_or("-");
            let _ = writeln!(
                text,
                "{:o} {} {} {} {hash} {}",
                record.mode,
                record.owner,
                record.group,
                record.size,
                escape(name)
            );
        }
        text
    }

    /// Parses the text of a manifest.
    ///
    /// # Errors
    /// A line is invalid.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(FormatError(1));
        }
        let mut records = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let (name, record) = parse_line(line).ok_or(FormatError(index + 2))?;
            records.insert(name, record);
        }
        Ok(Self { records })
    }

    /// Returns all differences of an actual content from the recorded one.
    pub fn compare(&self, actual: &Self) -> Vec<Difference> {
        let names: BTreeSet<_> = self.records.keys().chain(actual.records.keys()).collect();
        names
            .into_iter()
            .filter_map(|name| {
                let predicate = match (self.records.get(name), actual.records.get(name)) {
                    (Some(_), None) => "is missing",
                    (None, Some(_)) => "was added",
                    (Some(recorded), Some(actual)) => difference(recorded, actual)?,
                    (None, None) => return None,
                };
                let name = escape(name);
                Some(Difference { name, predicate })
            })
            .collect()
    }
}

fn difference(recorded: &FileRecord, actual: &FileRecord) -> Option<&'static str> {
    if recorded.hash != actual.hash || recorded.size != actual.size {
        Some("has another content")
    } else if (recorded.owner, recorded.group) != (actual.owner, actual.group) {
        Some("has another owner")
    } else if recorded.mode != actual.mode {
        Some("has another mode")
    } else {
        None
    }
}

fn parse_line(line: &str) -> Option<(Vec<u8>, FileRecord)> {
    let mut fields = line.split(' ');
    let record = FileRecord {
        mode: u32::from_str_radix(fields.next()?, 8).ok()?,
        owner: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        hash: Some(fields.next()?.to_owned()).filter(|hash| hash != "-"),
    };
    let name = unescape(fields.next()?)?;
    fields.next().is_none().then_some((name, record))
}

fn escape(name: &[u8]) -> String {
    let mut text = String::new();
    for byte in name {
        if byte.is_ascii_graphic() && *byte != b'%' {
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
        let name = prop::collection::vec(any::<u8>(), 1..12);
        let fields = (
            any::<[u32; 3]>(),
            any::<u64>(),
            prop::option::of("[0-9a-f]{8}"),
        );
        let record = fields.prop_map(|([mode, owner, group], size, hash)| FileRecord {
            mode,
            owner,
            group,
            size,
            hash,
        });
        prop::collection::btree_map(name, record, 0..6)
            .prop_map(|records| ContentManifest { records })
    }

    proptest! {
        #[test]
        fn a_printed_manifest_is_parsed_to_itself(manifest in manifest()) {
            prop_assert_eq!(ContentManifest::parse(&manifest.print()), Ok(manifest));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "(buildhost contents 1\n)?[0-9a-f% \n-]{0,80}") {
            let _ = ContentManifest::parse(&text);
        }
    }

    #[test]
    fn a_comparison_names_all_differences() {
        let record = |hash: &str, owner| FileRecord {
            mode: 0o100_644,
            owner,
            group: 0,
            size: 1,
            hash: Some(hash.to_owned()),
        };
        let manifest = |records: &[(&str, FileRecord)]| ContentManifest {
            records: records
                .iter()
                .map(|(name, record)| (name.as_bytes().to_vec(), record.clone()))
                .collect(),
        };
        let recorded = manifest(&[
            ("a", record("1", 0)),
            ("b", record("1", 0)),
            ("c d", record("1", 0)),
        ]);
        let actual = manifest(&[
            ("a", record("2", 0)),
            ("b", record("1", 7)),
            ("e", record("1", 0)),
        ]);
        let differences: Vec<_> = recorded
            .compare(&actual)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            differences,
            [
                "`a` has another content",
                "`b` has another owner",
                "`c%20d` is missing",
                "`e` was added"
            ]
        );
        assert!(recorded.compare(&recorded).is_empty());
    }
}
