//! Labels of builds: the submitter and the target.

use std::str::FromStr;

use crate::newtype::text_newtype;
use crate::task::Source;

/// The suffixes of archives and recipes.
const SUFFIXES: [&str; 9] = [
    ".gz", ".bz2", ".xz", ".zst", ".lz4", ".tar", ".tgz", ".zip", ".bb",
];

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $length_max:literal, $expected:literal, $is_valid:expr) => {
        text_newtype!($(#[$doc])* $name, LabelError);

        impl $name {
            /// The maximum length, in bytes.
            const LENGTH_MAX: usize = $length_max;
        }

        impl FromStr for $name {
            type Err = LabelError;

            fn from_str(text: &str) -> Result<Self, LabelError> {
                if text.len() <= Self::LENGTH_MAX && $is_valid(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(LabelError {
                    kind: $kind,
                    length_max: Self::LENGTH_MAX,
                    expected: $expected,
                    text: text.chars().take(40).collect(),
                })
            }
        }
    };
}

/// The error of parsing a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be {kind}: 1 to {length_max} characters {expected} are expected")]
pub struct LabelError {
    kind: &'static str,
    length_max: usize,
    expected: &'static str,
    text: String,
}

label!(
    /// The submitter of a build: a user of the host, `alice`, or the bearer of a token,
    /// `token:nightly`.
    Submitter,
    "a submitter",
    100,
    "without blanks",
    is_name
);

label!(
    /// The names of a build's subjects, separated by single blanks: `hello`,
    /// `core-image-minimal:do_populate_sdk busybox`.
    Target,
    "a target",
    1000,
    "without blanks, or several such names with a blank between them,",
    |text: &str| text.split(' ').all(is_name)
);

/// Returns true for a text without blanks and control characters that is not empty.
fn is_name(text: &str) -> bool {
    let is_allowed = |c: char| !c.is_whitespace() && !c.is_control();
    !text.is_empty() && text.chars().all(is_allowed)
}

impl Submitter {
    /// Returns the host's administrator.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

impl Target {
    /// Returns the names, of which there is one at least.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ')
    }

    /// Returns the default target of sources: the name of the first one without version
    /// and suffixes, `hello` for `hello-1.0.tar.gz`.
    pub fn from_sources(sources: &[Source]) -> Self {
        let file = sources.first().map_or("-", |source| source.name.as_str());
        let mut name = file;
        while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)) {
            name = shorter;
        }
        let version = name.match_indices(['-', '_']).find(|(at, _)| {
            let rest = name[at + 1..].trim_start_matches('v');
            rest.starts_with(|c: char| c.is_ascii_digit())
        });
        let name = version.map_or(name, |(at, _)| &name[..at]);
        Self(shown(if name.is_empty() { file } else { name }))
    }
}

/// Returns the name of a file as a target: without blanks, and not too long.
fn shown(name: &str) -> String {
    let name = &name[..name.floor_char_boundary(Target::LENGTH_MAX)];
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    name.chars()
        .map(|c| if is_blank(c) { '_' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_default_target_of_every_file_is_a_target(name in crate::names::any_file_name()) {
            let sha256 = "0".repeat(64).parse().unwrap();
            let target = Target::from_sources(&[Source { name, sha256 }]);
            prop_assert_eq!(target.as_str().parse(), Ok(target));
        }
    }

    #[test]
    fn a_target_has_one_name_or_several() {
        let names = |text: &str| {
            let target: Target = text.parse()?;
            Ok::<_, LabelError>(target.names().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(names("hello"), Ok(vec!["hello".to_owned()]));
        let two = ["a-img:do_x".to_owned(), "b-img".to_owned()];
        assert_eq!(names("a-img:do_x b-img"), Ok(two.to_vec()));
        for text in [
            "",
            " ",
            " a",
            "a ",
            "a  b",
            "a\tb",
            "a\nb",
            &"x".repeat(1001),
        ] {
            assert!(names(text).is_err(), "{text:?}");
        }
        assert_eq!(
            names("a  b").unwrap_err().to_string(),
            "\"a  b\" cannot be a target: 1 to 1000 characters without blanks, or several such \
             names with a blank between them, are expected"
        );
    }

    #[test]
    fn the_default_target_has_no_version_or_suffixes() {
        for (file, expected) in [
            ("hello-1.0.tar.gz", "hello"),
            ("hello_1.0.orig.tar.xz", "hello"),
            ("linux-yocto-v6.6.zip", "linux-yocto"),
            ("x264.bb", "x264"),
            ("7zip-24.tgz", "7zip"),
            ("notes", "notes"),
            ("1.tar", "1"),
            ("My Tool 1.0.zip", "My_Tool_1.0"),
        ] {
            let source = Source {
                name: file.parse().unwrap(),
                sha256: "0".repeat(64).parse().unwrap(),
            };
            assert_eq!(Target::from_sources(&[source]).as_str(), expected);
        }
        assert_eq!(Target::from_sources(&[]).as_str(), "-");
    }
}
