//! The differences between a content manifest and an actual content.

use std::collections::BTreeSet;
use std::fmt;

use super::format::escape;
use super::{ContentManifest, FileRecord};

/// The bits of a mode that hold the file type.
const TYPE_BITS: u32 = 0o170_000;

/// A difference between two manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path, escaped as in the format.
    pub name: String,
    /// The difference, as the predicate of a sentence.
    pub predicate: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name, self.predicate)
    }
}

impl ContentManifest {
    /// Returns all differences of an actual content from the recorded one.
    pub fn compare(&self, actual: &Self) -> Vec<Difference> {
        let names: BTreeSet<_> = self.records.keys().chain(actual.records.keys()).collect();
        let mut differences = Vec::new();
        for name in names {
            let predicates = match (self.records.get(name), actual.records.get(name)) {
                (Some(_), None) => vec!["is missing".to_owned()],
                (None, Some(_)) => vec!["was added".to_owned()],
                (Some(recorded), Some(actual)) => predicates(recorded, actual),
                (None, None) => Vec::new(),
            };
            differences.extend(predicates.into_iter().map(|predicate| Difference {
                name: escape(name, b""),
                predicate,
            }));
        }
        differences
    }
}

/// Returns the differences of one entry.
fn predicates(recorded: &FileRecord, actual: &FileRecord) -> Vec<String> {
    if recorded == actual {
        return Vec::new();
    }
    if recorded.mode & TYPE_BITS != actual.mode & TYPE_BITS {
        return vec!["has another file type".to_owned()];
    }
    let properties = [
        (
            "content",
            (&recorded.content, recorded.size) != (&actual.content, actual.size),
        ),
        (
            "owner",
            (recorded.owner, recorded.group) != (actual.owner, actual.group),
        ),
        ("mode", recorded.mode != actual.mode),
        ("device number", recorded.device != actual.device),
    ];
    let mut predicates: Vec<_> = properties
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(property, _)| format!("has another {property}"))
        .collect();
    let names: BTreeSet<_> = recorded
        .attributes
        .keys()
        .chain(actual.attributes.keys())
        .collect();
    for name in names {
        let noun = match property(name) {
            Some(property) => property.to_owned(),
            None => format!("attribute `{}`", escape(name, b"")),
        };
        match (recorded.attributes.get(name), actual.attributes.get(name)) {
            (Some(recorded), Some(actual)) if recorded == actual => {}
            (Some(_), None) => predicates.push(format!("lacks its {noun}")),
            (None, _) => predicates.push(format!("has an unrecorded {noun}")),
            _ if property(name).is_some() => predicates.push(format!("has another {noun}")),
            _ => predicates.push(format!("has another value of its {noun}")),
        }
    }
    predicates
}

/// Returns the property that an attribute holds; `None` for an attribute of a program.
fn property(name: &[u8]) -> Option<&'static str> {
    match name {
        b"security.capability" => Some("capability"),
        b"system.posix_acl_access" => Some("ACL"),
        b"system.posix_acl_default" => Some("default ACL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::content_manifest::{FileContent, Format};

    fn content(text: &str) -> FileContent {
        FileContent::Blocks(vec![(0, blake3::hash(text.as_bytes()))])
    }

    fn record() -> FileRecord {
        FileRecord {
            mode: 0o100_644,
            owner: 0,
            group: 0,
            size: 1,
            content: content("1"),
            device: None,
            attributes: BTreeMap::new(),
        }
    }

    fn with_attributes(attributes: &[(&str, &str)]) -> FileRecord {
        FileRecord {
            attributes: attributes
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), blake3::hash(value.as_bytes())))
                .collect(),
            ..record()
        }
    }

    fn differences(recorded: &[(&str, FileRecord)], actual: &[(&str, FileRecord)]) -> Vec<String> {
        let manifest = |records: &[(&str, FileRecord)]| ContentManifest {
            format: Format::Three,
            records: records
                .iter()
                .map(|(name, record)| (name.as_bytes().to_vec(), record.clone()))
                .collect(),
        };
        manifest(recorded)
            .compare(&manifest(actual))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn a_comparison_names_all_entries_that_differ() {
        let changed = FileRecord {
            content: content("2"),
            ..record()
        };
        let recorded = [("a", record()), ("b", record()), ("c d", record())];
        let actual = [("a", changed), ("b", record()), ("e", record())];
        let expected = [
            "`a` has another content",
            "`c%20d` is missing",
            "`e` was added",
        ];
        assert_eq!(differences(&recorded, &actual), expected);
        assert!(differences(&recorded, &recorded).is_empty());
    }

    #[test]
    fn a_comparison_names_all_properties_that_differ() {
        let device = |major, minor| FileRecord {
            mode: 0o20_666,
            content: FileContent::None,
            device: Some((major, minor)),
            ..record()
        };
        let other = FileRecord {
            mode: 0o100_600,
            group: 7,
            size: 2,
            ..record()
        };
        for (recorded, actual, expected) in [
            (
                record(),
                other,
                &["content", "owner", "mode"].map(|it| format!("has another {it}"))[..],
            ),
            (
                device(1, 3),
                device(1, 1),
                &["has another device number".to_owned()],
            ),
            (
                device(1, 3),
                record(),
                &["has another file type".to_owned()],
            ),
            (
                with_attributes(&[
                    ("security.capability", "1"),
                    ("system.posix_acl_access", "1"),
                    ("user.same", "1"),
                    ("user.x", "1"),
                ]),
                with_attributes(&[
                    ("security.capability", "2"),
                    ("system.posix_acl_default", "1"),
                    ("user.same", "1"),
                    ("user.x", "2"),
                ]),
                &[
                    "has another capability",
                    "lacks its ACL",
                    "has an unrecorded default ACL",
                    "has another value of its attribute `user.x`",
                ]
                .map(str::to_owned),
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|it| format!("`f` {it}")).collect();
            let found = differences(&[("f", recorded)], &[("f", actual)]);
            assert_eq!(found, expected);
        }
    }
}
