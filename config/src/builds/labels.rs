//! Words that people choose: who asks for builds, and what is built.

use std::str::FromStr;

use crate::task::Source;
use crate::text::text;

/// What the names of archives and recipes end with.
const ENDS: [&str; 9] = [
    ".gz", ".bz2", ".xz", ".zst", ".lz4", ".tar", ".tgz", ".zip", ".bb",
];

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $what:literal, $length_max:literal) => {
        text!($(#[$doc])* $name, LabelError);

        impl FromStr for $name {
            type Err = LabelError;

            fn from_str(text: &str) -> Result<Self, LabelError> {
                let fine = |c: char| !c.is_whitespace() && !c.is_control();
                if (1..=$length_max).contains(&text.len()) && text.chars().all(fine) {
                    return Ok(Self(text.to_owned()));
                }
                Err(LabelError {
                    what: $what,
                    length_max: $length_max,
                    text: text.chars().take(40).collect(),
                })
            }
        }
    };
}

/// Why a text is not one word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is called by at most {length_max} characters without blanks, not by {text:?}")]
pub struct LabelError {
    what: &'static str,
    length_max: usize,
    text: String,
}

word!(
    /// Who asked for a build: a user of the host, `alice`, or the bearer of a token,
    /// `token:nightly`.
    Submitter,
    "whoever asks for builds",
    100
);

word!(
    /// What people call what is built: `hello`, `core-image-minimal:do_populate_sdk`.
    Target,
    "what is built",
    200
);

impl Submitter {
    /// The host's own administrator.
    pub fn root() -> Self {
        Self("root".to_owned())
    }
}

impl Target {
    /// What sources are called when nobody says it: the name of the first without its
    /// version and the ends of archives, `hello` for `hello-1.0.tar.gz`.
    pub fn of(sources: &[Source]) -> Self {
        let file = sources.first().map_or("-", |source| source.name.as_str());
        let mut name = file;
        while let Some(shorter) = ENDS.iter().find_map(|end| name.strip_suffix(end)) {
            name = shorter;
        }
        let version = name.match_indices(['-', '_']).find(|(at, _)| {
            let rest = name[at + 1..].trim_start_matches('v');
            rest.starts_with(|c: char| c.is_ascii_digit())
        });
        let name = version.map_or(name, |(at, _)| &name[..at]);
        // A file's name is never empty, and shorter than a target may be.
        Self(if name.is_empty() { file } else { name }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_called_by_their_name_without_version_and_ends() {
        for (file, expected) in [
            ("hello-1.0.tar.gz", "hello"),
            ("hello_1.0.orig.tar.xz", "hello"),
            ("linux-yocto-v6.6.zip", "linux-yocto"),
            ("x264.bb", "x264"),
            ("7zip-24.tgz", "7zip"),
            ("notes", "notes"),
            ("1.tar", "1"),
        ] {
            let source = Source {
                name: file.parse().unwrap(),
                sha256: "0".repeat(64).parse().unwrap(),
            };
            assert_eq!(Target::of(&[source]).as_str(), expected);
        }
        assert_eq!(Target::of(&[]).as_str(), "-");
    }
}
