//! The short names of guests on this host: of their run directories, and, after the
//! host's name, of their networks and control groups. What has another name is not ours.

use std::fmt;
use std::str::FromStr;

use crate::BuildId;

/// The short name of a copy of what is held of a build: `42-a1`. The copy's snapshot
/// has it, and so has the guest in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyTag {
    /// The build.
    pub build: BuildId,
    /// The number of the copy among all that this agent has made.
    pub number: u64,
}

impl FromStr for CopyTag {
    type Err = NoGuestTag;

    fn from_str(text: &str) -> Result<Self, NoGuestTag> {
        let (build, number) = numbers(text, "-a")?;
        as_printed(Self { build, number }, text)
    }
}

impl fmt::Display for CopyTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-a{}", self.build, self.number)
    }
}

/// The short name of an auxiliary guest of a build: `42-x1`. Its snapshot has it as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuxiliaryTag {
    /// The build.
    pub build: BuildId,
    /// The number of the guest among those of the build, from 1.
    pub number: u8,
}

impl FromStr for AuxiliaryTag {
    type Err = NoGuestTag;

    fn from_str(text: &str) -> Result<Self, NoGuestTag> {
        let (build, number) = numbers(text, "-x")?;
        as_printed(Self { build, number }, text)
    }
}

impl fmt::Display for AuxiliaryTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-x{}", self.build, self.number)
    }
}

/// The end of the short name of a fork point.
const FORK: &str = "-f";

/// The short name of a guest: the number of a build, that with the number of a debug session or of an
/// auxiliary guest, or a letter and a number. A fork point has one as well, but no guest.
///
/// The parser is the only door: leftovers of guests are deleted only if their name parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestTag {
    /// The guest of a build: `42`.
    Build(BuildId),
    /// The guest in a copy of what is held of a build: `42-a1`.
    Copy(CopyTag),
    /// An auxiliary guest of a build: `42-x1`.
    Auxiliary(AuxiliaryTag),
    /// The guest of a bootstrap: `b3`.
    Bootstrap(u64),
    /// A ready guest, which gets a build's name with the build: `r7`.
    Ready(u64),
    /// The fork point of a build: `42-f`.
    Fork(BuildId),
}

/// A name that no guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no guest has such a name")]
pub struct NoGuestTag;

impl FromStr for GuestTag {
    type Err = NoGuestTag;

    fn from_str(text: &str) -> Result<Self, NoGuestTag> {
        let number = |text: &str| text.parse().map_err(|_| NoGuestTag);
        let tag = if let Some(text) = text.strip_prefix('b') {
            Self::Bootstrap(number(text)?)
        } else if let Some(text) = text.strip_prefix('r') {
            Self::Ready(number(text)?)
        } else if let Some(build) = text.strip_suffix(FORK) {
            build.parse().map(Self::Fork).map_err(|_| NoGuestTag)?
        } else if text.contains("-x") {
            Self::Auxiliary(text.parse()?)
        } else if text.contains('-') {
            Self::Copy(text.parse()?)
        } else {
            text.parse().map(Self::Build).map_err(|_| NoGuestTag)?
        };
        as_printed(tag, text)
    }
}

impl fmt::Display for GuestTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "{id}"),
            Self::Copy(tag) => write!(f, "{tag}"),
            Self::Auxiliary(tag) => write!(f, "{tag}"),
            Self::Bootstrap(number) => write!(f, "b{number}"),
            Self::Ready(number) => write!(f, "r{number}"),
            Self::Fork(id) => write!(f, "{id}{FORK}"),
        }
    }
}

/// Parses the number of a build and another number, with a separator between them.
fn numbers<N: FromStr>(text: &str, separator: &str) -> Result<(BuildId, N), NoGuestTag> {
    let (build, number) = text.split_once(separator).ok_or(NoGuestTag)?;
    let build = build.parse().map_err(|_| NoGuestTag)?;
    Ok((build, number.parse().map_err(|_| NoGuestTag)?))
}

/// Returns a tag if it is printed as the text: a number can be written in many ways, a tag in one.
fn as_printed<T: fmt::Display>(tag: T, text: &str) -> Result<T, NoGuestTag> {
    if tag.to_string() == text {
        Ok(tag)
    } else {
        Err(NoGuestTag)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_people_are_not_tags() {
        for name in [
            "",
            "lab",
            "b",
            "b07",
            "07",
            "b+1",
            "+1",
            "-1",
            "1 ",
            "B1",
            "1b",
            "b1-2",
            "r",
            "r07",
            "r1-a1",
            "1-2",
            "1-a",
            "1-a01",
            "-a1",
            "1-a1-a1",
            "1-f1",
            "01-f",
            "-f",
            "1-f-f",
            "1-a1-f",
            "1-x",
            "1-x01",
            "1-x256",
            "1-x1-a1",
            "-x1",
            "lost+found",
        ] {
            assert_eq!(name.parse::<GuestTag>(), Err(NoGuestTag), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_parsed_as_printed(number: u64, build: u64) {
            let build = BuildId(build);
            let auxiliary = AuxiliaryTag { build, number: number.to_le_bytes()[0] };
            for tag in [GuestTag::Build(build), GuestTag::Auxiliary(auxiliary), GuestTag::Copy(CopyTag { build, number }), GuestTag::Bootstrap(number), GuestTag::Ready(number), GuestTag::Fork(build)] {
                prop_assert_eq!(tag.to_string().parse(), Ok(tag));
            }
        }

        #[test]
        fn a_parsed_tag_is_printed_identically(text in "[br+0-9a-cfx-]{0,5}") {
            if let Ok(tag) = text.parse::<GuestTag>() {
                prop_assert_eq!(tag.to_string(), text);
            }
        }
    }
}
