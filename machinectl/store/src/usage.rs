//! The space that a machine takes. btrfs does not know it without quota groups, which slow it down,
//! so `btrfs filesystem du` counts the extents of all files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use config::layout::Entry;
use config::{Revision, ToolchainName};
use sys::command;

use crate::{MachineView, Refusal, RefusalKind, Result, Volume};

/// The time limit. It takes about a second for ten revisions of 10,000 files each, and several on
/// a slow disk.
const LIMIT: Duration = Duration::from_mins(10);

/// The refusal of an answer that this version cannot parse.
#[derive(Debug, thiserror::Error)]
#[error("`btrfs filesystem du` answered `{0}`")]
pub struct UnknownUsage(String);

impl Refusal for UnknownUsage {
    fn kind(&self) -> RefusalKind {
        RefusalKind::Invalid
    }
}

/// The space of the data of a subvolume. The metadata, such as names, is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The number of bytes, shared or not.
    pub bytes: u64,
    /// The number of bytes that no other subvolume shares: a deletion frees them.
    pub exclusive: u64,
}

/// The space of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineUsage {
    /// The number of bytes of all revisions, images and snapshots. Shared ones count once.
    pub bytes: u64,
    /// The space of each revision.
    pub revisions: BTreeMap<Revision, Usage>,
    /// The space of each image.
    pub images: BTreeMap<ToolchainName, Usage>,
}

/// A line of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line {
    total: u64,
    exclusive: u64,
    shared: u64,
}

impl Volume {
    /// Counts the space of a machine. Reads the metadata of all its files.
    ///
    /// # Errors
    /// A subvolume was deleted meanwhile, or the caller lacks the rights.
    pub fn usage(&self, view: &MachineView) -> Result<MachineUsage> {
        let revisions = view.revisions.iter().map(|it| it.revision);
        let images = view.images.iter().map(|it| it.toolchain.clone());
        let revisions: Vec<_> = revisions.collect();
        let images: Vec<_> = images.collect();
        let entries = revisions.iter().copied().map(Entry::Revision);
        let entries = entries.chain(images.iter().cloned().map(Entry::Image));
        let paths = entries.map(|entry| self.entry(&view.name, &entry));
        let paths: Vec<PathBuf> = [self.directory(&view.name)]
            .into_iter()
            .chain(paths)
            .collect();
        let mut du = command::prepare("btrfs");
        du.args(["filesystem", "du", "--summarize", "--raw", "--"]);
        du.args(&paths);
        let answer = command::run(du, LIMIT)?;
        let answer = String::from_utf8_lossy(&answer);
        let lines = parse(&answer).filter(|lines| lines.len() == paths.len());
        let lines = lines.ok_or_else(|| UnknownUsage(answer.chars().take(200).collect()))?;
        let mut lines = lines.into_iter();
        // The whole is counted as a set, in which what is shared counts once.
        let bytes = lines.next().map_or(0, |it| it.exclusive + it.shared);
        let mut usages = lines.map(|it| Usage {
            bytes: it.total,
            exclusive: it.exclusive,
        });
        Ok(MachineUsage {
            bytes,
            revisions: revisions.into_iter().zip(usages.by_ref()).collect(),
            images: images.into_iter().zip(usages).collect(),
        })
    }
}

/// Parses the lines below the headings `Total`, `Exclusive`, `Set shared` and `Filename`.
fn parse(answer: &str) -> Option<Vec<Line>> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace().map(|it| it.parse().ok());
        let mut next = || fields.next()?;
        Some(Line {
            total: next()?,
            exclusive: next()?,
            shared: next()?,
        })
    };
    answer.lines().skip(1).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_line_by_line() {
        let answer = "     Total   Exclusive  Set shared  Filename\n\
                      21708800000     4341760  2186076160  /v/m\n\
                      2170880000           0  2170880000  /v/m/m-1\n";
        let line = |total, exclusive, shared| Line {
            total,
            exclusive,
            shared,
        };
        let lines = vec![
            line(21_708_800_000, 4_341_760, 2_186_076_160),
            line(2_170_880_000, 0, 2_170_880_000),
        ];
        assert_eq!(parse(answer), Some(lines));
        assert_eq!(parse("heading\n1 2 - /v/m\n"), None);
    }
}
