//! A request for a machine from a distribution.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use config::machine::Kind;

/// A request for a machine.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source of the root file system.
    pub recipe: Recipe,
    /// The kind of machine.
    pub kind: Kind,
    /// Further packages.
    pub include: Vec<PackageName>,
    /// Leaves out the packages with which others are built.
    pub minimal: bool,
    /// The mirrors; empty for those of the host.
    pub mirrors: Vec<String>,
    /// The size of a virtual machine's disk, in bytes.
    pub disk_bytes: u64,
    /// The memory of a guest, in bytes.
    pub memory_bytes: u64,
    /// The number of processors of a guest.
    pub cpus: u32,
}

/// The source of a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// The built-in recipe, for a release of Debian.
    Debian(Suite),
    /// A program.
    File(PathBuf),
}

/// The name of a release of Debian: `bookworm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite(String);

/// The name of a package, optionally with a version or a release: `gcc`, `hello=2.10-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageName(String);

/// The parser's error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of {of}, such as {example}")]
pub struct NameFault {
    text: String,
    of: &'static str,
    example: &'static str,
}

/// Returns true for names that no program reads as an option, a list or a path.
fn is_name(text: &str, extra: &str) -> bool {
    text.starts_with(|it: char| it.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|it| it.is_ascii_alphanumeric() || extra.contains(it))
}

impl FromStr for Suite {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let fault = || NameFault {
            text: text.to_owned(),
            of: "a release of Debian",
            example: "bookworm or trixie",
        };
        let is_suite = is_name(text, "-.");
        is_suite.then(|| Self(text.to_owned())).ok_or_else(fault)
    }
}

impl FromStr for PackageName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        let fault = || NameFault {
            text: text.to_owned(),
            of: "a package",
            example: "gcc or libssl-dev",
        };
        let is_package = is_name(text, "+-.:=~_/");
        is_package.then(|| Self(text.to_owned())).ok_or_else(fault)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_neither_options_nor_lists() {
        for good in [
            "gcc",
            "libstdc++-12-dev",
            "hello=2.10-3",
            "gcc:amd64",
            "apt/sid",
        ] {
            assert_eq!(good.parse::<PackageName>().unwrap().to_string(), good);
        }
        for bad in ["", "-x", "a,b", "a b", "?essential", "../x", "a\n"] {
            bad.parse::<PackageName>().unwrap_err();
            bad.parse::<Suite>().unwrap_err();
        }
        let error = "--help".parse::<Suite>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`--help` is not the name of a release of Debian, such as bookworm or trixie"
        );
    }
}
