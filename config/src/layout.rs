//! What the names in a machine's directory mean.
//!
//! ```text
//! linux-gcc_6/
//! ├── linux-gcc_6 -> linux-gcc_6-2   current
//! ├── linux-gcc_6-1                  revision
//! ├── linux-gcc_6-2                  revision
//! ├── linux-gcc_6-default            bootstrapped image
//! ├── linux-gcc_6-default-42         snapshot
//! ├── .buildhost.new                 a link on its way to become the current one
//! ├── .buildhost.arriving-3 -> linux-gcc_6-3   a revision that may lack content
//! ├── .buildhost.pin-1 -> linux-gcc_6-1   a revision that is kept
//! └── .buildhost.deleting            the current link of a machine that is being deleted
//! ```
//!
//! A name is read only together with the machine whose directory holds it:
//! `linux-2` alone could be a machine or a revision of one. What does not read is
//! a stranger, and strangers are never touched.

use std::fmt;

use crate::names::{MachineName, Revision, Tag, ToolchainName};

const INCOMING: &str = ".buildhost.new";
const DELETING: &str = ".buildhost.deleting";
const PIN: &str = ".buildhost.pin-";
const ARRIVING: &str = ".buildhost.arriving-";

/// One entry of a machine's directory that is ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The symbolic link to the revision in effect.
    Current,
    /// A link that will be renamed to [`Entry::Current`].
    Incoming,
    /// The former current link of a machine whose deletion has begun.
    Deleting,
    /// The link that says of a revision that it is being made: its content may not be
    /// on the disk yet, even when it is read-only.
    Arriving(Revision),
    /// The link that keeps a revision from being pruned.
    Pin(Revision),
    /// An initial image.
    Revision(Revision),
    /// A clone of a revision with a toolchain installed.
    Image(ToolchainName),
    /// A writable clone for one build or one bootstrap.
    Snapshot(ToolchainName, Tag),
}

impl Entry {
    /// Reads a name of `machine`'s directory. `None` is somebody else's.
    pub fn read(machine: &MachineName, name: &str) -> Option<Self> {
        match name {
            INCOMING => return Some(Self::Incoming),
            DELETING => return Some(Self::Deleting),
            _ => {}
        }
        if let Some(revision) = name.strip_prefix(PIN) {
            return Some(Self::Pin(revision.parse().ok()?));
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

    /// The entry's name in `machine`'s directory; what [`Entry::read`] reads back.
    pub fn name(&self, machine: &MachineName) -> String {
        match self {
            Self::Current => machine.to_string(),
            Self::Incoming => INCOMING.to_owned(),
            Self::Deleting => DELETING.to_owned(),
            Self::Pin(revision) => format!("{PIN}{revision}"),
            Self::Arriving(revision) => format!("{ARRIVING}{revision}"),
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
            Self::Arriving(revision) => write!(f, "the mark of the unfinished revision {revision}"),
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
            any::<u32>().prop_map(|n| Entry::Pin(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Arriving(Revision(n))),
            any::<u32>().prop_map(|n| Entry::Revision(Revision(n))),
            toolchain.clone().prop_map(Entry::Image),
            (toolchain, tag).prop_map(|(t, tag)| Entry::Snapshot(t, tag)),
        ]
    }

    proptest! {
        #[test]
        fn what_we_write_we_read_back(
            machine in "[a-z0-9][a-z0-9._+-]{0,12}",
            entry in entry(),
        ) {
            let machine = machine.parse().unwrap();
            prop_assert_eq!(Entry::read(&machine, &entry.name(&machine)), Some(entry));
        }

        #[test]
        fn what_we_read_we_would_have_written(
            machine in "(linux|linux-2|linux-gcc|2)",
            name in "(linux|linux-2|linux-gcc|2)?(-?[0-9a-z._+-]{0,6}){0,3}",
        ) {
            let machine = machine.parse().unwrap();
            if let Some(entry) = Entry::read(&machine, &name) {
                prop_assert_eq!(entry.name(&machine), name);
            }
        }
    }

    #[test]
    fn ambiguous_names_are_settled_by_the_directory() {
        let linux = "linux".parse().unwrap();
        let linux_2 = "linux-2".parse().unwrap();
        assert_eq!(
            Entry::read(&linux, "linux-2"),
            Some(Entry::Revision(Revision(2)))
        );
        assert_eq!(Entry::read(&linux_2, "linux-2"), Some(Entry::Current));
        assert_eq!(
            Entry::read(&linux_2, "linux-2-2"),
            Some(Entry::Revision(Revision(2)))
        );
    }

    #[test]
    fn strangers_are_not_ours() {
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
            ".buildhost.arriving-",
        ] {
            assert_eq!(Entry::read(&linux, name), None, "{name}");
        }
    }
}
