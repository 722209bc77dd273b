//! The key of a bootstrapped image.

use std::fmt;

use crate::builds::Build;
use crate::{MachineName, ToolchainName};

/// The key of a bootstrapped image: a machine and the toolchain installed in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageKey {
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
}

impl ImageKey {
    /// Returns the key of the image that a build runs on.
    pub fn of(build: &Build) -> Self {
        Self {
            machine: build.machine.clone(),
            toolchain: build.toolchain.clone(),
        }
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {}", self.machine, self.toolchain)
    }
}
