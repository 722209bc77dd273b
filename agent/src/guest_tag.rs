//! The short names of guests on this host: of their run directories, and, after the
//! host's name, of their networks and control groups. What has another name is not ours.

use std::fmt;
use std::str::FromStr;

use config::BuildId;

/// The short name of a guest: a build's number, or a letter and a number.
///
/// This is the only grammar: whoever deletes what guests left behind reads names
/// with it, and leaves alone what does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GuestTag {
    /// The guest of a build: `42`.
    Build(BuildId),
    /// The guest of a bootstrap: `b3`.
    Bootstrap(u64),
}

/// A name that no guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no guest has such a name")]
pub struct NoGuestTag;

impl FromStr for GuestTag {
    type Err = NoGuestTag;

    fn from_str(text: &str) -> Result<Self, NoGuestTag> {
        let tag = match text.strip_prefix('b') {
            Some(number) => number
                .parse()
                .map(Self::Bootstrap)
                .map_err(|_| NoGuestTag)?,
            None => text.parse().map(Self::Build).map_err(|_| NoGuestTag)?,
        };
        // A number can be written in many ways; we write it in one.
        if tag.to_string() == text {
            Ok(tag)
        } else {
            Err(NoGuestTag)
        }
    }
}

impl fmt::Display for GuestTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build(id) => write!(f, "{id}"),
            Self::Bootstrap(number) => write!(f, "b{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_person_names_is_no_guest() {
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
            "lost+found",
        ] {
            assert_eq!(name.parse::<GuestTag>(), Err(NoGuestTag), "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_back(number: u64, bootstrap: bool) {
            let tag = if bootstrap { GuestTag::Bootstrap(number) } else { GuestTag::Build(BuildId(number)) };
            prop_assert_eq!(tag.to_string().parse(), Ok(tag));
        }

        #[test]
        fn what_reads_is_what_we_would_write(text in "[b+0-9a-c]{0,4}") {
            if let Ok(tag) = text.parse::<GuestTag>() {
                prop_assert_eq!(tag.to_string(), text);
            }
        }
    }
}
