//! The names of the program.

use std::ffi::OsStr;
use std::path::Path;

/// The name by which the program was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// The product's name; also the answer to any other name.
    Buildhost,
    /// The name that existing scripts use.
    Machinectl,
}

impl Program {
    /// Returns the name in the first argument of the process.
    pub(crate) fn called() -> Self {
        Self::from_path(std::env::args_os().next().as_deref())
    }

    fn from_path(path: Option<&OsStr>) -> Self {
        match path.and_then(|path| Path::new(path).file_name()) {
            Some(name) if name == Self::Machinectl.name() => Self::Machinectl,
            _ => Self::Buildhost,
        }
    }

    /// Returns the name as text.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buildhost => "buildhost",
            Self::Machinectl => "machinectl",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_of_the_path_selects_the_name() {
        for (path, expected) in [
            (None, Program::Buildhost),
            (Some("buildhost"), Program::Buildhost),
            (Some("/usr/local/bin/buildhost"), Program::Buildhost),
            (Some("../machinectl"), Program::Machinectl),
            (Some("machinectl"), Program::Machinectl),
            (Some("renamed"), Program::Buildhost),
        ] {
            assert_eq!(Program::from_path(path.map(OsStr::new)), expected);
        }
    }
}
