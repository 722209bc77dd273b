//! Labels of builds: the submitter and the target.

use std::str::FromStr;

use crate::newtype::text_newtype;
use crate::task::Source;

/// The suffixes of archives and recipes.
const SUFFIXES: [&str; 9] = [
    ".gz", ".bz2", ".xz", ".zst", ".lz4", ".tar", ".tgz", ".zip", ".bb",
];

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $length_max:literal) => {
        text_newtype!($(#[$doc])* $name, LabelError);

        impl $name {
            /// The maximum length, in bytes.
            const LENGTH_MAX: usize = $length_max;
        }

        impl FromStr for $name {
            type Err = LabelError;

            fn from_str(text: &str) -> Result<Self, LabelError> {
                let is_allowed = |c: char| !c.is_whitespace() && !c.is_control();
                if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.chars().all(is_allowed) {
                    return Ok(Self(text.to_owned()));
                }
                Err(LabelError {
                    kind: $kind,
                    length_max: Self::LENGTH_MAX,
                    text: text.chars().take(40).collect(),
                })
            }
        }
    };
}

/// The error of parsing a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be {kind}: 1 to {length_max} characters without blanks are expected")]
pub struct LabelError {
    kind: &'static str,
    length_max: usize,
    text: String,
}

label!(
    /// The submitter of a build: a user of the host, `alice`, or the bearer of a token,
    /// `token:nightly`.
    Submitter,
    "a submitter",
    100
);

label!(
    /// The name of a build's subject: `hello`, `core-image-minimal:do_populate_sdk`.
    Target,
    "a target",
    200
);

impl Submitter {
    /// Returns the host's administrator.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

impl Target {
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
