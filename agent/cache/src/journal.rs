//! The journal of a staging directory: a line for each entry that a build has put. Pure.
//!
//! It is for the next agent, which adopts the guest. It need not survive a power failure, because
//! guests do not either.

use std::collections::BTreeMap;

use config::cache::CachePath;

use crate::content::ContentHash;

/// The content of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// Its hash.
    pub(crate) hash: ContentHash,
    /// Its size.
    pub(crate) bytes: u64,
}

/// Returns the line of an entry.
pub(crate) fn line(path: &CachePath, content: Content) -> String {
    format!("{} {} {path}\n", content.hash, content.bytes)
}

/// Returns the entries of a journal. The last line of a path counts. A line that was not written
/// whole is left out: its entry was not confirmed.
pub(crate) fn parse(text: &str) -> BTreeMap<CachePath, Content> {
    let lines = text.split_inclusive('\n');
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(CachePath, Content)> {
    let mut words = line.strip_suffix('\n')?.splitn(3, ' ');
    let content = Content {
        hash: words.next()?.parse().ok()?,
        bytes: words.next()?.parse().ok()?,
    };
    Some((words.next()?.parse().ok()?, content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_path() -> impl Strategy<Value = CachePath> {
        "(downloads|objects|sstate-cache)/[^/\u{0}-\u{1f}]{1,8}(/[a-z: +~=%]{1,8})?"
            .prop_filter_map("no path", |text| text.parse().ok())
    }

    proptest! {
        #[test]
        fn every_entry_is_read_back_however_the_journal_ends(
            entries in prop::collection::vec((any_path(), any::<u64>()), 0..6),
            cut in 0_usize..200,
        ) {
            let content = |bytes: u64| Content {
                hash: blake3::hash(&bytes.to_le_bytes()).into(),
                bytes,
            };
            let lines: Vec<_> = entries.iter().map(|(path, bytes)| line(path, content(*bytes))).collect();
            let whole = lines.concat();
            let expected: BTreeMap<_, _> =
                entries.iter().map(|(path, bytes)| (path.clone(), content(*bytes))).collect();
            prop_assert_eq!(parse(&whole), expected);
            // The agent was killed while it wrote a line.
            let end = whole.floor_char_boundary(whole.len().saturating_sub(cut));
            let count = whole[..end].matches('\n').count();
            let expected: BTreeMap<_, _> =
                entries[..count].iter().map(|(path, bytes)| (path.clone(), content(*bytes))).collect();
            prop_assert_eq!(parse(&whole[..end]), expected);
        }
    }

    #[test]
    fn other_lines_are_left_out() {
        let hash = blake3::hash(b"").to_hex();
        let text =
            format!("x\n{hash} 0\n{hash} 0 ../x\n{hash} -1 objects/x\n\n{hash} 0 objects/x\n");
        let entries: Vec<_> = parse(&text).into_keys().collect();
        assert_eq!(entries, ["objects/x".parse().unwrap()]);
    }
}
