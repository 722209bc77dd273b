//! What a revision is asked for: a package, and one checksum of it.

use std::fmt;

use serde::Deserialize;

/// A package in the sense of the PR service: a version (BitBake's `${PF}`) on an architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Package {
    /// Name, version and recipe revision, such as `busybox-1.36.1-r0`.
    pub version: String,
    /// The architecture, such as `core2-64`.
    pub pkgarch: String,
}

/// One build of a package, told from the others by the checksum of its task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The package.
    pub package: Package,
    /// The checksum, any text.
    pub checksum: String,
}

impl Package {
    /// A package from its two names.
    pub fn new(version: impl Into<String>, pkgarch: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            pkgarch: pkgarch.into(),
        }
    }
}

impl Tuple {
    /// A tuple from its three texts.
    pub fn new(
        version: impl Into<String>,
        pkgarch: impl Into<String>,
        checksum: impl Into<String>,
    ) -> Self {
        Self {
            package: Package::new(version, pkgarch),
            checksum: checksum.into(),
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} for {}", self.version, self.pkgarch)
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} with checksum {}", self.package, self.checksum)
    }
}
