//! Content records: the content manifests that a host makes of revisions that arrived without one.
//! They are files beside the revisions, because a received revision is never written to.
//!
//! A record says what this host found, and not what the sender meant. It is therefore no part of a
//! revision's identity, and no other host learns of it.
//!
//! The first line is `buildhost record <version> <UUID> <transaction>`, with the properties of the
//! subvolume when it was read. The text of the content manifest follows.

use crate::content_manifest::{ContentManifest, FormatError};
use btrfs::{Subvolume, Uuid};

/// The start of the first line, before the version.
const HEAD: &str = "buildhost record ";
/// The version of the first line.
const VERSION: u32 = 1;

/// The recorded content of a subvolume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRecord {
    uuid: Uuid,
    /// The transaction of the subvolume's last change.
    transaction: u64,
    /// The content.
    pub manifest: ContentManifest,
}

impl ContentRecord {
    /// Returns the record of a subvolume's content.
    pub fn new(subvolume: &Subvolume, manifest: ContentManifest) -> Self {
        Self {
            uuid: subvolume.uuid,
            transaction: subvolume.transaction,
            manifest,
        }
    }

    /// Returns true if the record is of a subvolume, which may have changed since.
    pub fn is_of(&self, subvolume: &Subvolume) -> bool {
        self.uuid == subvolume.uuid
    }

    /// Returns true if the record is of a subvolume that has not changed since.
    pub fn is_up_to_date(&self, subvolume: &Subvolume) -> bool {
        self.is_of(subvolume) && self.transaction == subvolume.transaction
    }

    /// Returns the text of the record.
    pub fn print(&self) -> String {
        let (uuid, transaction) = (self.uuid, self.transaction);
        let manifest = self.manifest.print();
        format!("{HEAD}{VERSION} {uuid} {transaction}\n{manifest}")
    }

    /// Parses the text of a record.
    ///
    /// # Errors
    /// A line is invalid, or a later version wrote it.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let invalid = FormatError::Line(1);
        let (head, manifest) = text.split_once('\n').ok_or(invalid.clone())?;
        let head = head.strip_prefix(HEAD).ok_or(invalid.clone())?;
        let (version, head) = head.split_once(' ').ok_or(invalid.clone())?;
        match version.parse() {
            Ok(VERSION) => {}
            Ok(later) if later > VERSION => return Err(FormatError::Later(later)),
            _ => return Err(invalid),
        }
        let subvolume = head.split_once(' ').and_then(|(uuid, transaction)| {
            Some((Uuid::parse_str(uuid).ok()?, transaction.parse().ok()?))
        });
        let (uuid, transaction) = subvolume.ok_or(invalid)?;
        let manifest = ContentManifest::parse(manifest).map_err(|error| match error {
            FormatError::Line(line) => FormatError::Line(line + 1),
            later @ FormatError::Later(_) => later,
        })?;
        Ok(Self {
            uuid,
            transaction,
            manifest,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content_manifest::Format;

    const MANIFEST: &str = "buildhost contents 3\n40755 0 0 0 - - - .\n";
    const SUBVOLUME: &str = "11111111-2222-3333-4444-555555555555";

    proptest! {
        #[test]
        fn a_printed_record_is_parsed_to_itself(uuid in any::<u128>(), transaction in any::<u64>()) {
            let record = ContentRecord {
                uuid: Uuid::from_u128(uuid),
                transaction,
                manifest: ContentManifest::parse(MANIFEST).unwrap(),
            };
            prop_assert_eq!(ContentRecord::parse(&record.print()), Ok(record));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "(buildhost record [12] )?[0-9a-f \n-]{0,60}") {
            let _ = ContentRecord::parse(&text);
        }
    }

    #[test]
    fn the_stored_form_is_read() {
        let text = format!("buildhost record 1 {SUBVOLUME} 42\n{MANIFEST}");
        let record = ContentRecord::parse(&text).unwrap();
        assert_eq!(
            (record.transaction, record.manifest.format),
            (42, Format::Three)
        );
        assert_eq!(record.uuid.to_string(), SUBVOLUME);
        assert_eq!(record.print(), text);
    }

    #[test]
    fn invalid_lines_are_named() {
        for (text, error) in [
            (String::new(), FormatError::Line(1)),
            (MANIFEST.to_owned(), FormatError::Line(1)),
            (
                format!("buildhost record 0 {SUBVOLUME} 42\n{MANIFEST}"),
                FormatError::Line(1),
            ),
            (
                format!("buildhost record 1 {SUBVOLUME}\n{MANIFEST}"),
                FormatError::Line(1),
            ),
            (
                format!("buildhost record 1 x 42\n{MANIFEST}"),
                FormatError::Line(1),
            ),
            (
                format!("buildhost record 1 {SUBVOLUME} 42\n"),
                FormatError::Line(2),
            ),
            (
                format!("buildhost record 1 {SUBVOLUME} 42\n{MANIFEST}x\n"),
                FormatError::Line(4),
            ),
            (
                format!("buildhost record 2 {SUBVOLUME} 42 x\n"),
                FormatError::Later(2),
            ),
            (
                format!("buildhost record 1 {SUBVOLUME} 42\nbuildhost contents 4\n"),
                FormatError::Later(4),
            ),
        ] {
            assert_eq!(ContentRecord::parse(&text), Err(error), "{text}");
        }
    }
}
