//! The differences between two revisions of a machine, from their content manifests.

use std::collections::BTreeMap;

use config::{MachineName, Revision};

use crate::{Result, Volume};
use contents::content_manifest::{self, ContentManifest, Format, VerifyRefusal};

/// The difference of a file, directory or link between an older and a newer revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryDifference {
    /// The path, escaped as in content manifests.
    pub name: String,
    /// The size of the older file in bytes; `None` if the entry was added.
    pub before: Option<u64>,
    /// The size of the newer file in bytes; `None` if the entry is missing.
    pub after: Option<u64>,
    /// The differences, as predicates of a sentence about the newer entry.
    pub predicates: Vec<String>,
}

impl Volume {
    /// Compares the content manifests or records of two complete revisions. Reads no other file, so what was
    /// changed after a manifest was written is not found; see [`Volume::verify`].
    ///
    /// # Errors
    /// A revision does not exist or has neither a content manifest nor a record, or only one of both has hashes of
    /// blocks.
    pub fn diff(
        &self,
        machine: &MachineName,
        older: Revision,
        newer: Revision,
    ) -> Result<Vec<EntryDifference>> {
        let view = self.view(machine)?;
        let read = |revision| -> Result<ContentManifest> {
            let revision = view.resolve(Some(revision))?;
            self.manifest_of(machine, revision)
        };
        let (mut older, mut newer) = (read(older)?, read(newer)?);
        if (older.format < Format::Three) != (newer.format < Format::Three) {
            return Err(VerifyRefusal::Formats(older.format, newer.format).into());
        }
        let format = older.format.min(newer.format);
        older.reduce_to(format);
        newer.reduce_to(format);
        Ok(differences(&older, &newer))
    }
}

/// Returns the differences by entry, sorted by name.
fn differences(older: &ContentManifest, newer: &ContentManifest) -> Vec<EntryDifference> {
    let mut predicates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for difference in older.compare(newer) {
        let known = predicates.entry(difference.name).or_default();
        known.push(difference.predicate);
    }
    let sizes = |manifest: &ContentManifest| -> BTreeMap<String, u64> {
        let records = manifest.records.iter();
        let sizes = records.map(|(name, record)| (content_manifest::escaped(name), record.size));
        sizes.collect()
    };
    let (before, after) = (sizes(older), sizes(newer));
    let difference = |(name, predicates): (String, Vec<String>)| EntryDifference {
        before: before.get(&name).copied(),
        after: after.get(&name).copied(),
        name,
        predicates,
    };
    predicates.into_iter().map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> ContentManifest {
        ContentManifest::parse(text).unwrap()
    }

    #[test]
    fn differences_have_the_sizes_of_both_entries() {
        let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex();
        let older = manifest(&format!(
            "buildhost contents 1\n100644 0 0 5 {} a%20b\n100644 0 0 6 {} gone\n40755 0 0 0 - same\n",
            hash("a"),
            hash("gone"),
        ));
        let newer = manifest(&format!(
            "buildhost contents 1\n100600 0 0 7 {} a%20b\n100644 0 0 8 {} new\n40755 0 0 0 - same\n",
            hash("changed"),
            hash("new"),
        ));
        let difference = |name: &str, before, after, predicates: &[&str]| EntryDifference {
            name: name.to_owned(),
            before,
            after,
            predicates: predicates.iter().map(ToString::to_string).collect(),
        };
        let expected = [
            difference(
                "a%20b",
                Some(5),
                Some(7),
                &["has another content", "has another mode"],
            ),
            difference("gone", Some(6), None, &["is missing"]),
            difference("new", None, Some(8), &["was added"]),
        ];
        assert_eq!(differences(&older, &newer), expected);
        assert_eq!(differences(&older, &older), []);
    }

    #[test]
    fn properties_that_only_one_manifest_covers_are_not_compared() {
        let hash = blake3::hash(b"value").to_hex();
        let text = format!("buildhost contents 2\n20666 0 0 0 - 1:3 user.a={hash} null\n");
        let mut newer = manifest(&text);
        let older = manifest("buildhost contents 1\n20666 0 0 0 - null\n");
        newer.reduce_to(older.format);
        assert_eq!(differences(&older, &newer), []);
    }
}
