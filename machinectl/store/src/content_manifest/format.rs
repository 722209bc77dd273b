//! The record's form, and how two of them differ. Thinks only.
//!
//! One line for each file, directory and link, sorted by name:
//! `<mode> <owner> <group> <size> <hash> <name>`. In a name, `%`, blanks and what
//! is not plain ASCII are written as `%xx`; a hash that is not there is `-`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// The first line; a new form gets a new one.
const HEAD: &str = "buildhost contents 1";

/// Everything in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// By name, relative to the directory, as bytes.
    pub items: BTreeMap<Vec<u8>, Item>,
}

/// A file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its kind and its permissions.
    pub mode: u32,
    /// The number of its owner.
    pub owner: u32,
    /// The number of its group.
    pub group: u32,
    /// The size of a file; 0 for all others.
    pub size: u64,
    /// BLAKE3 of a file's content or a link's target, in hexadecimal digits.
    pub hash: Option<String>,
}

/// A name for which two records disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name, escaped as in the record.
    pub name: String,
    /// What differs.
    pub what: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.what)
    }
}

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {0} is not of a record of contents")]
pub struct RecordError(pub usize);

impl Record {
    /// The text of the file.
    pub fn print(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (name, item) in &self.items {
            let hash = item.hash.as_deref().unwrap_or("-");
            let _ = writeln!(
                text,
                "{:o} {} {} {} {hash} {}",
                item.mode,
                item.owner,
                item.group,
                item.size,
                escape(name)
            );
        }
        text
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(RecordError(1));
        }
        let mut items = BTreeMap::new();
        for (index, line) in lines.enumerate() {
            let (name, item) = parse_line(line).ok_or(RecordError(index + 2))?;
            items.insert(name, item);
        }
        Ok(Self { items })
    }

    /// Everything in which `found` is not what was recorded.
    pub fn compare(&self, found: &Self) -> Vec<Difference> {
        let names = self.items.keys().chain(found.items.keys());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names.dedup();
        let differences = names.into_iter().filter_map(|name| {
            let what = match (self.items.get(name), found.items.get(name)) {
                (Some(_), None) => "is missing",
                (None, Some(_)) => "was added",
                (Some(one), Some(other)) => difference(one, other)?,
                (None, None) => return None,
            };
            let name = escape(name);
            Some(Difference { name, what })
        });
        differences.collect()
    }
}

fn difference(recorded: &Item, found: &Item) -> Option<&'static str> {
    if recorded.hash != found.hash || recorded.size != found.size {
        Some("has another content")
    } else if (recorded.owner, recorded.group) != (found.owner, found.group) {
        Some("has another owner")
    } else if recorded.mode != found.mode {
        Some("has another mode")
    } else {
        None
    }
}

fn parse_line(line: &str) -> Option<(Vec<u8>, Item)> {
    let mut words = line.split(' ');
    let item = Item {
        mode: u32::from_str_radix(words.next()?, 8).ok()?,
        owner: words.next()?.parse().ok()?,
        group: words.next()?.parse().ok()?,
        size: words.next()?.parse().ok()?,
        hash: Some(words.next()?.to_owned()).filter(|hash| hash != "-"),
    };
    let name = unescape(words.next()?)?;
    words.next().is_none().then_some((name, item))
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

    fn record() -> impl Strategy<Value = Record> {
        let name = prop::collection::vec(any::<u8>(), 1..12);
        let item = (
            any::<[u32; 3]>(),
            any::<u64>(),
            prop::option::of("[0-9a-f]{8}"),
        );
        let item = item.prop_map(|([mode, owner, group], size, hash)| Item {
            mode,
            owner,
            group,
            size,
            hash,
        });
        prop::collection::btree_map(name, item, 0..6).prop_map(|items| Record { items })
    }

    proptest! {
        #[test]
        fn what_we_write_we_read_back(record in record()) {
            prop_assert_eq!(Record::parse(&record.print()), Ok(record));
        }

        #[test]
        fn no_text_makes_the_reader_fall_over(text in "(buildhost contents 1\n)?[0-9a-f% \n-]{0,80}") {
            let _ = Record::parse(&text);
        }
    }

    #[test]
    fn differences_are_named() {
        let item = |hash: &str, owner| Item {
            mode: 0o100_644,
            owner,
            group: 0,
            size: 1,
            hash: Some(hash.to_owned()),
        };
        let record = |items: &[(&str, Item)]| Record {
            items: items
                .iter()
                .map(|(name, item)| (name.as_bytes().to_vec(), item.clone()))
                .collect(),
        };
        let one = record(&[
            ("a", item("1", 0)),
            ("b", item("1", 0)),
            ("c d", item("1", 0)),
        ]);
        let other = record(&[
            ("a", item("2", 0)),
            ("b", item("1", 7)),
            ("e", item("1", 0)),
        ]);
        let told: Vec<_> = one
            .compare(&other)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "`a` has another content",
                "`b` has another owner",
                "`c%20d` is missing",
                "`e` was added"
            ]
        );
        assert!(one.compare(&one).is_empty());
    }
}
