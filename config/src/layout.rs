//! The layout of a machine's directory.
//!
//! ```text
//! linux-gcc_6/
//! ├── linux-gcc_6 -> linux-gcc_6-2   current
//! ├── linux-gcc_6-1                  revision
//! ├── linux-gcc_6-2                  revision
//! ├── linux-gcc_6-default            bootstrapped image
//! ├── linux-gcc_6-default-42         snapshot
//! ├── .buildhost.new                 the next current link, before its rename
//! ├── .buildhost.arriving-3 -> linux-gcc_6-3   the mark of an incomplete revision
//! ├── .buildhost.ingest              an empty directory, locked by the process that creates revision 3
//! ├── .buildhost.partial-3           what has arrived of revision 3, whose transfer was cut
//! ├── .buildhost.partial-3.json      the parts of the stream that are in it
//! ├── .buildhost.contents-2          the content of revision 2, as it was recorded here
//! ├── .buildhost.note-2.json         the note on revision 2
//! ├── .buildhost.canary-3.json       the trial of revision 3
//! ├── .buildhost.canary-3-default    the bootstrapped image of revision 3 for its trial
//! ├── .buildhost.pin-1 -> linux-gcc_6-1   the pin of a revision
//! └── .buildhost.deleting            the current link of a machine that is being deleted
//! ```
//!
//! A name is parsed together with the name of its machine: `linux-2` alone could be a
//! machine or a revision. An entry whose name does not parse is unmanaged and never
//! touched.

use std::fmt;

use crate::names::{MachineName, Revision, Tag, ToolchainName};

const INGEST: &str = ".buildhost.ingest";
const INCOMING: &str = ".buildhost.new";
const DELETING: &str = ".buildhost.deleting";
const PIN: &str = ".buildhost.pin-";
const NOTE: &str = ".buildhost.note-";
const CONTENTS: &str = ".buildhost.contents-";
const CANARY: &str = ".buildhost.canary-";
const PARTIAL: &str = ".buildhost.partial-";
/// The end of the names of files that describe a revision.
const DESCRIPTION: &str = ".json";
const ARRIVING: &str = ".buildhost.arriving-";

/// A managed entry of a machine's directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The symbolic link to the current revision.
    Current,
    /// The link that will be renamed to [`Entry::Current`].
    Incoming,
    /// The former current link of a machine that is being deleted.
    Deleting,
    /// The link that marks a revision as incomplete: its content may not have reached the
    /// disk, even if it is read-only.
    Arriving(Revision),
    /// The empty directory whose lock the creator of a revision holds until the revision is
    /// published.
    Ingest,
    /// A read-only subvolume with what has arrived of a revision.
    Partial(Revision),
    /// The file that names the parts of the stream in a partial revision.
    PartialState(Revision),
    /// The file with the note on a revision.
    Note(Revision),
    /// The file with the content manifest that this host made of a revision.
    ContentRecord(Revision),
    /// The file that says that a revision is on trial, or how its trial has ended.
    Trial(Revision),
    /// The bootstrapped image of a revision that is on trial.
    TrialImage(Revision, ToolchainName),
    /// The link that protects a revision from being pruned.
    Pin(Revision),
    /// A revision of the machine.
    Revision(Revision),
    /// A clone of a revision with a toolchain installed.
    Image(ToolchainName),
    /// A writable clone for one build or bootstrap.
    Snapshot(ToolchainName, Tag),
}

impl Entry {
    /// Parses a name in `machine`'s directory. Returns `None` for an unmanaged entry.
    pub fn parse(machine: &MachineName, name: &str) -> Option<Self> {
        match name {
            INCOMING => return Some(Self::Incoming),
            DELETING => return Some(Self::Deleting),
            INGEST => return Some(Self::Ingest),
            _ => {}
        }
        if let Some(revision) = name.strip_prefix(PIN) {
            return Some(Self::Pin(revision.parse().ok()?));
        }
        if let Some(note) = name.strip_prefix(NOTE) {
            let revision = note.strip_suffix(DESCRIPTION)?;
            return Some(Self::Note(revision.parse().ok()?));
        }
        if let Some(revision) = name.strip_prefix(CONTENTS) {
            return Some(Self::ContentRecord(revision.parse().ok()?));
        }
        if let Some(canary) = name.strip_prefix(CANARY) {
            if let Some((revision, toolchain)) = canary.split_once('-') {
                let toolchain = toolchain.parse().ok()?;
                return Some(Self::TrialImage(revision.parse().ok()?, toolchain));
            }
            let revision = canary.strip_suffix(DESCRIPTION)?;
            return Some(Self::Trial(revision.parse().ok()?));
        }
        if let Some(partial) = name.strip_prefix(PARTIAL) {
            return Some(match partial.strip_suffix(DESCRIPTION) {
                Some(revision) => Self::PartialState(revision.parse().ok()?),
                None => Self::Partial(partial.parse().ok()?),
            });
        }
        if let Some(revision) = name.strip_prefix(ARRIVING) {
            return Some(Self::Arriving(revision.parse().ok()?));
        }
        let rest = name.strip_prefix(machine.as_str())?;
        if rest.is_empty() {
            return Some(Self::Current);
        }
        let rest = rest.strip_prefix('-')?;
        if let Ok(revision) = rest.parse() {
            return Some(Self::Revision(revision));
        }
        match rest.split_once('-') {
            None => Some(Self::Image(rest.parse().ok()?)),
            Some((toolchain, tag)) => {
                Some(Self::Snapshot(toolchain.parse().ok()?, tag.parse().ok()?))
            }
        }
    }

    /// Returns the name of the entry in `machine`'s directory, which [`Entry::parse`] parses.
    pub fn name(&self, machine: &MachineName) -> String {
        match self {
            Self::Current => machine.to_string(),
            Self::Incoming => INCOMING.to_owned(),
            Self::Deleting => DELETING.to_owned(),
            Self::Ingest => INGEST.to_owned(),
            Self::Note(revision) => format!("{NOTE}{revision}{DESCRIPTION}"),
            Self::ContentRecord(revision) => format!("{CONTENTS}{revision}"),
            Self::Trial(revision) => format!("{CANARY}{revision}{DESCRIPTION}"),
            Self::TrialImage(revision, toolchain) => format!("{CANARY}{revision}-{toolchain}"),
            Self::Pin(revision) => format!("{PIN}{revision}"),
            Self::Arriving(revision) => format!("{ARRIVING}{revision}"),
            Self::Partial(revision) => format!("{PARTIAL}{revision}"),
            Self::PartialState(revision) => format!("{PARTIAL}{revision}{DESCRIPTION}"),
            Self::Revision(revision) => format!("{machine}-{revision}"),
            Self::Image(toolchain) => format!("{machine}-{toolchain}"),
            Self::Snapshot(toolchain, tag) => format!("{machine}-{toolchain}-{tag}"),
        }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current => write!(f, "the current link"),
            Self::Incoming => write!(f, "the incoming link"),
            Self::Deleting => write!(f, "the link of a deletion"),
            Self::Ingest => write!(f, "the lock of an ingest"),
            Self::Arriving(revision) => write!(f, "the mark of the unfinished revision {revision}"),
            Self::Partial(revision) => write!(f, "the partial revision {revision}"),
            Self::PartialState(revision) => {
                write!(f, "the parts of the partial revision {revision}")
            }
            Self::Note(revision) => write!(f, "the note on revision {revision}"),
            Self::ContentRecord(revision) => write!(f, "the content record of revision {revision}"),
            Self::Trial(revision) => write!(f, "the trial of revision {revision}"),
            Self::TrialImage(revision, toolchain) => {
                write!(
                    f,
                    "the image of revision {revision} for toolchain {toolchain}"
                )
            }
            Self::Pin(revision) => write!(f, "the pin of revision {revision}"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
            Self::Image(toolchain) => write!(f, "the image for toolchain {toolchain}"),
            Self::Snapshot(toolchain, tag) => write!(f, "snapshot {tag} of toolchain {toolchain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let toolchain = "[a-zA-Z][a-z0-9._+]{0,8}".prop_map(|t| t.parse().unwrap());
        let tag = "[a-z0-9][a-z0-9._+-]{0,8}".prop_map(|t| t.parse().unwrap());
        prop_oneof![
            Just(Entry::Current),
            Just(Entry::Incoming),
            Just(Entry::Deleting),
            Just(Entry::Ingest),
            any::<u32>().prop_map(|n| Entry::Pin(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Arriving(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Partial(Revision(n))),
            any::<u32>().prop_map(|n| Entry::PartialState(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Note(Revision(n))),
            any::<u32>().prop_map(|n| Entry::ContentRecord(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Trial(Revision(n))),
            (any::<u32>(), toolchain.clone())
                .prop_map(|(n, toolchain)| Entry::TrialImage(Revision(n), toolchain)),
            any::<u32>().prop_map(|n| Entry::Revision(Revision(n))),
            toolchain.clone().prop_map(Entry::Image),
            (toolchain, tag).prop_map(|(t, tag)| Entry::Snapshot(t, tag)),
        ]
    }

    proptest! {
        #[test]
        fn written_names_parse_to_the_same_entry(
            machine in "[a-z0-9][a-z0-9._+-]{0,12}",
            entry in entry(),
        ) {
            let machine = machine.parse().unwrap();
            prop_assert_eq!(Entry::parse(&machine, &entry.name(&machine)), Some(entry));
        }

        #[test]
        fn parsed_names_are_written_unchanged(
            machine in "(linux|linux-2|linux-gcc|2)",
            name in "(linux|linux-2|linux-gcc|2)?(-?[0-9a-z._+-]{0,6}){0,3}",
        ) {
            let machine = machine.parse().unwrap();
            if let Some(entry) = Entry::parse(&machine, &name) {
                prop_assert_eq!(entry.name(&machine), name);
            }
        }
    }

    #[test]
    fn the_machine_resolves_ambiguous_names() {
        let linux = "linux".parse().unwrap();
        let linux_2 = "linux-2".parse().unwrap();
        assert_eq!(
            Entry::parse(&linux, "linux-2"),
            Some(Entry::Revision(Revision(2)))
        );
        assert_eq!(Entry::parse(&linux_2, "linux-2"), Some(Entry::Current));
        assert_eq!(
            Entry::parse(&linux_2, "linux-2-2"),
            Some(Entry::Revision(Revision(2)))
        );
    }

    #[test]
    fn other_names_are_unmanaged() {
        let linux = "linux".parse().unwrap();
        for name in [
            "",
            "windows-1",
            "linux-007",
            "linux-",
            "linux--1",
            "linux_1",
            "notes.txt",
            "linux-1-x",
            ".buildhost",
            ".buildhost.pin-",
            ".buildhost.pin-01",
            ".buildhost.contents-",
            ".buildhost.contents-1.json",
            ".buildhost.arriving-",
            ".buildhost.canary-1",
            ".buildhost.canary-01.json",
            ".buildhost.canary-1-",
            ".buildhost.canary-1-a-b",
        ] {
            assert_eq!(Entry::parse(&linux, name), None, "{name}");
        }
    }
}
