//! Names. Each is a type whose parser is the only constructor: a [`MachineName`] is
//! always valid, and `../x` cannot reach a path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::newtype::text_newtype;

/// The error of parsing a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be the name of a {kind}: {fault}")]
pub struct NameError {
    /// The rejected text, truncated.
    pub text: String,
    /// The kind of name that was expected.
    pub kind: &'static str,
    /// The fault, and what is allowed.
    pub fault: String,
}

impl NameError {
    fn new(text: &str, kind: &'static str, fault: impl Into<String>) -> Self {
        let mut short: String = text.chars().take(40).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        let fault = fault.into();
        Self {
            text: short,
            kind,
            fault,
        }
    }
}

/// The grammar of a kind of name.
struct Grammar {
    kind: &'static str,
    first: fn(char) -> bool,
    /// The description of `first` for messages.
    first_allowed: &'static str,
    /// The allowed characters in addition to letters and digits.
    punctuation: &'static str,
    length_max: usize,
}

impl Grammar {
    fn check(&self, text: &str) -> Result<(), NameError> {
        let fault = |fault: String| Err(NameError::new(text, self.kind, fault));
        let Some(first) = text.chars().next() else {
            return fault("it is empty".into());
        };
        if text.len() > self.length_max {
            return fault(format!("it is longer than {} characters", self.length_max));
        }
        if !(self.first)(first) {
            return fault(format!("it must start with {}", self.first_allowed));
        }
        let is_forbidden = |c: &char| !c.is_ascii_alphanumeric() && !self.punctuation.contains(*c);
        match text.chars().find(is_forbidden) {
            Some(c) => fault(format!(
                "{c:?} is not allowed; use letters, digits and `{}`",
                self.punctuation
            )),
            None => Ok(()),
        }
    }
}

/// The grammar of the names of files: all that a file system and a terminal can show.
struct FileGrammar;

impl FileGrammar {
    const BYTES_MAX: usize = 255;

    #[expect(clippy::unused_self, reason = "the grammars of `name!` are values")]
    fn check(&self, text: &str) -> Result<(), NameError> {
        let fault = |fault: String| Err(NameError::new(text, "file of a build", fault));
        if text.is_empty() {
            return fault("it is empty".into());
        }
        if text.len() > Self::BYTES_MAX {
            return fault(format!("it is longer than {} bytes", Self::BYTES_MAX));
        }
        if text.starts_with('.') {
            return fault("it must not start with a dot".into());
        }
        // The replacement of what was no text: the file would be another one.
        if text.contains(char::REPLACEMENT_CHARACTER) {
            return fault("it is not UTF-8".into());
        }
        if text.trim() != text {
            return fault("it must not start or end with a blank".into());
        }
        match text.chars().find(|c| *c == '/' || is_control(*c)) {
            Some(c) => fault(format!(
                "{c:?} is not allowed; all characters but `/` and control characters are"
            )),
            None => Ok(()),
        }
    }
}

/// Returns true for characters that act on a text instead of being part of it: control
/// characters, line ends, and those that change the direction of writing.
pub(crate) fn is_control(c: char) -> bool {
    let directions = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || directions || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic()
}

fn letter_or_digit(c: char) -> bool {
    c.is_ascii_alphanumeric()
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $grammar:expr) => {
        text_newtype!($(#[$doc])* $name, NameError);

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
    /// The name of a machine, and of its directory in a volume: `linux-gcc_6`.
    MachineName,
    Grammar {
        kind: "machine",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 100,
    }
);

name!(
    /// The name of a toolchain: `default`. It starts with a letter and has no `-`, so that
    /// the names in a machine's directory are unambiguous.
    ToolchainName,
    Grammar {
        kind: "toolchain",
        first: is_letter,
        first_allowed: "a letter (a number would read as a revision)",
        punctuation: "._+",
        length_max: 64,
    }
);

name!(
    /// The last part of a snapshot's name: a build's number, or a word.
    Tag,
    Grammar {
        kind: "snapshot",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

name!(
    /// The name of a source or an artifact of a build, or of a file of a machine or a
    /// toolchain: one component, never a path. Package formats decide about everything else:
    /// `foo-1.0^20240101git-1.fc40.x86_64.rpm`.
    FileName,
    FileGrammar
);

name!(
    /// The name of a schedule: `nightly`.
    ScheduleName,
    Grammar {
        kind: "schedule",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

name!(
    /// The name of a countable resource: `license`.
    ResourceName,
    Grammar {
        kind: "resource",
        first: is_letter,
        first_allowed: "a letter",
        punctuation: "._-",
        length_max: 64,
    }
);

name!(
    /// The name of a cache, and of its directory: `yocto`.
    CacheName,
    Grammar {
        kind: "cache",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

name!(
    /// The name of a secret, and of its file in a guest: `upload-key`.
    SecretName,
    Grammar {
        kind: "secret",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

name!(
    /// The name of a controller: `public-ci`.
    ControllerName,
    Grammar {
        kind: "controller",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._-",
        length_max: 64,
    }
);

name!(
    /// The name of a rule for notifications: `team-mail`.
    NotifyName,
    Grammar {
        kind: "rule for notifications",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._-",
        length_max: 64,
    }
);

name!(
    /// The name of a package feed: `main`.
    FeedName,
    Grammar {
        kind: "feed",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._-",
        length_max: 64,
    }
);

name!(
    /// The name of a layer: `meta-oe`.
    LayerName,
    Grammar {
        kind: "layer",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 100,
    }
);

name!(
    /// The name of a release of layers: `wrynose`.
    ReleaseName,
    Grammar {
        kind: "release",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 32,
    }
);

name!(
    /// The name of a project: `camera`.
    ProjectName,
    Grammar {
        kind: "project",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

name!(
    /// The name of a context: `farm`.
    ContextName,
    Grammar {
        kind: "context",
        first: letter_or_digit,
        first_allowed: "a letter or a digit",
        punctuation: "._+-",
        length_max: 64,
    }
);

impl Tag {
    /// Returns the tag of the snapshot in which a machine is bootstrapped.
    pub fn bootstrap() -> Self {
        Self("bootstrap".to_owned())
    }
}

impl FileName {
    /// Returns the default name of a root disk.
    pub fn disk() -> Self {
        Self("disk.img".to_owned())
    }

    /// Returns the default name of the directory with a container's root.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

/// The number of a machine's revision: the `2` in `linux-gcc_6-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u32);

impl FromStr for Revision {
    type Err = NameError;

    /// Parses a number without a sign or leading zeros.
    fn from_str(text: &str) -> Result<Self, NameError> {
        number(text, "revision").map(Self)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a build. Numbers increase for the life of a host and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(pub u64);

impl BuildId {
    /// Returns the tag of the build's snapshot.
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

fn number<N: FromStr + ToString>(text: &str, kind: &'static str) -> Result<N, NameError> {
    match text.parse::<N>() {
        Ok(number) if number.to_string() == text => Ok(number),
        _ => Err(NameError::new(text, kind, "it must be a plain number")),
    }
}

/// Names of files as a strategy for tests of formats that carry them.
#[cfg(test)]
pub(crate) fn any_file_name() -> impl proptest::strategy::Strategy<Value = FileName> {
    use proptest::strategy::Strategy;
    let valid = |text: String| text.parse::<FileName>().ok();
    "[^/.]{1,8}|[a-z0-9 %,:;=!#?&+\"'`$^~@()\\\\\u{e4}\u{20ac}-]{1,40}"
        .prop_filter_map("no name", valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_are_unchanged() {
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
    fn invalid_names_are_rejected_with_a_reason() {
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
    fn names_of_files_may_have_the_characters_of_all_package_formats() {
        let longest = "\u{fc}".repeat(127) + "x";
        for text in [
            "foo-1.0^20240101git-1.fc40.x86_64.rpm",
            "hello_1.0~rc1-r0.2_x86.ipk",
            "Setup File (x86, 64 bit) 100%.exe",
            "lib%2Fcore=1:2!.deb",
            "-dash",
            "\u{c4}pfel-1.0.tar.gz",
            "a\\",
            "\\",
            "a..b",
            "#1",
            ":",
            longest.as_str(),
        ] {
            assert_eq!(text.parse::<FileName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_of_files_are_no_paths_and_cannot_change_a_terminal() {
        let long = "\u{fc}".repeat(128);
        for (text, reason) in [
            ("", "it is empty"),
            (".", "it must not start with a dot"),
            ("..", "it must not start with a dot"),
            (".hidden", "it must not start with a dot"),
            ("../x", "it must not start with a dot"),
            ("a/b", "'/' is not allowed"),
            ("/", "'/' is not allowed"),
            (" a", "it must not start or end with a blank"),
            ("a\u{a0}", "it must not start or end with a blank"),
            ("a\nb", "'\\n' is not allowed"),
            ("a\0b", "'\\0' is not allowed"),
            ("a\u{1b}[31m", "'\\u{1b}' is not allowed"),
            ("a\u{85}b", "'\\u{85}' is not allowed"),
            ("a\u{202e}gpj.exe", "'\\u{202e}' is not allowed"),
            ("a\u{2028}b", "'\\u{2028}' is not allowed"),
            ("a\u{fffd}b", "it is not UTF-8"),
            (long.as_str(), "it is longer than 255 bytes"),
        ] {
            let error = text.parse::<FileName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn toolchain_names_cannot_look_like_revisions_or_snapshots() {
        for text in ["2", "7z", "gcc-1", "default-x"] {
            assert!(text.parse::<ToolchainName>().is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_with_signs_or_leading_zeros_are_rejected() {
        assert_eq!("42".parse(), Ok(Revision(42)));
        for text in ["", "007", "+1", "-1", "1x", " 1", "99999999999"] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_in_json_are_checked() {
        assert!(serde_json::from_str::<MachineName>("\"../etc\"").is_err());
        let name: MachineName = serde_json::from_str("\"linux\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"linux\"");
    }
}
