//! The names of things. Each is a type whose parser is the only door: whoever
//! holds a [`MachineName`] need not check it again, and `../x` cannot reach a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::text;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be the name of a {what}: {fault}")]
pub struct NameError {
    /// The text as it came, shortened when it is long.
    pub text: String,
    /// What it should have named.
    pub what: &'static str,
    /// What is wrong, and what would be right.
    pub fault: String,
}

impl NameError {
    fn new(text: &str, what: &'static str, fault: impl Into<String>) -> Self {
        let mut short: String = text.chars().take(40).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        let fault = fault.into();
        Self {
            text: short,
            what,
            fault,
        }
    }
}

/// What a kind of name may look like; the one place that knows the grammar.
struct Grammar {
    what: &'static str,
    first: fn(char) -> bool,
    first_words: &'static str,
    rest: &'static str,
    length_max: usize,
}

impl Grammar {
    fn check(&self, text: &str) -> Result<(), NameError> {
        let fault = |fault: String| Err(NameError::new(text, self.what, fault));
        let Some(first) = text.chars().next() else {
            return fault("it is empty".into());
        };
        if text.len() > self.length_max {
            return fault(format!("it is longer than {} characters", self.length_max));
        }
        if !(self.first)(first) {
            return fault(format!("it must start with {}", self.first_words));
        }
        let strange = |c: &char| !c.is_ascii_alphanumeric() && !self.rest.contains(*c);
        match text.chars().find(strange) {
            Some(c) => fault(format!(
                "{c:?} is not allowed; use letters, digits and `{}`",
                self.rest
            )),
            None => Ok(()),
        }
    }
}

fn letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

fn letter_or_digit(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $grammar:expr) => {
        text!($(#[$doc])* $name, NameError);

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $grammar.check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }
    };
}

name!(
    /// A build machine, known by its directory in a volume: `linux-gcc_6`.
    MachineName,
    Grammar {
        what: "machine",
        first: letter_or_digit,
        first_words: "a letter or a digit",
        rest: "._+-",
        length_max: 100,
    }
);

name!(
    /// A toolchain: `default`. It starts with a letter and holds no `-`, so that
    /// the names in a machine's directory can be read in one way only.
    ToolchainName,
    Grammar {
        what: "toolchain",
        first: letter,
        first_words: "a letter (a number would read as a revision)",
        rest: "._+",
        length_max: 64,
    }
);

name!(
    /// The last part of a snapshot's name: the build's number, or a word.
    Tag,
    Grammar {
        what: "snapshot",
        first: letter_or_digit,
        first_words: "a letter or a digit",
        rest: "._+-",
        length_max: 64,
    }
);

name!(
    /// A file that a build takes in or gives out: one component, never a path.
    FileName,
    Grammar {
        what: "file of a build",
        first: letter_or_digit,
        first_words: "a letter or a digit",
        rest: "._+-~@",
        length_max: 200,
    }
);

name!(
    /// A schedule: `nightly`.
    ScheduleName,
    Grammar {
        what: "schedule",
        first: letter_or_digit,
        first_words: "a letter or a digit",
        rest: "._+-",
        length_max: 64,
    }
);

impl Tag {
    /// The tag of the snapshot in which a machine is bootstrapped.
    pub fn bootstrap() -> Self {
        Self("bootstrap".to_owned())
    }
}

impl FileName {
    /// The usual name of a root disk.
    pub fn disk() -> Self {
        Self("disk.img".to_owned())
    }

    /// The usual name of the directory with a container's root.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

/// The number of an initial image of a machine: the `2` in `linux-gcc_6-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u32);

impl FromStr for Revision {
    type Err = NameError;

    /// Reads a number as we write it: no sign, no leading zero.
    fn from_str(text: &str) -> Result<Self, NameError> {
        number(text, "revision").map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a build. It counts up for the life of a host and never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(pub u64);

impl BuildId {
    /// The tag of the build's snapshot.
    pub fn tag(self) -> Tag {
        Tag(self.0.to_string())
    }
}

impl FromStr for BuildId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        number(text, "build").map(Self)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn number<N: FromStr + ToString>(text: &str, what: &'static str) -> Result<N, NameError> {
    match text.parse::<N>() {
        Ok(number) if number.to_string() == text => Ok(number),
        _ => Err(NameError::new(text, what, "it must be a plain number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_are_taken_as_they_are() {
        for text in ["linux-gcc_6", "x86_64-linux_debian_12", "a", "2", "linux-2"] {
            assert_eq!(text.parse::<MachineName>().unwrap().as_str(), text);
        }
        assert_eq!(
            "default".parse::<ToolchainName>().unwrap().as_str(),
            "default"
        );
        assert_eq!(
            "hello_1.0-r0.2_x86.ipk"
                .parse::<FileName>()
                .unwrap()
                .as_str(),
            "hello_1.0-r0.2_x86.ipk"
        );
    }

    #[test]
    fn bad_names_are_refused_with_a_reason() {
        let long = "x".repeat(300);
        let table = [
            ("", "it is empty"),
            ("..", "it must start with a letter or a digit"),
            (".x", "it must start with a letter or a digit"),
            ("-x", "it must start with a letter or a digit"),
            ("a/b", "'/' is not allowed"),
            ("a b", "' ' is not allowed"),
            ("maschine-ü", "'ü' is not allowed"),
            ("a\nb", "'\\n' is not allowed"),
            (long.as_str(), "it is longer than 100 characters"),
        ];
        for (text, reason) in table {
            let error = text.parse::<MachineName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_toolchain_cannot_be_taken_for_a_revision_or_a_snapshot() {
        for text in ["2", "7z", "gcc-1", "default-x"] {
            assert!(text.parse::<ToolchainName>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_read_only_as_we_write_them() {
        assert_eq!("42".parse(), Ok(Revision(42)));
        for text in ["", "007", "+1", "-1", "1x", " 1", "99999999999"] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_checked_when_they_come_from_json() {
        assert!(serde_json::from_str::<MachineName>("\"../etc\"").is_err());
        let name: MachineName = serde_json::from_str("\"linux\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"linux\"");
    }
}
