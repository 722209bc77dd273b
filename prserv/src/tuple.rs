//! The key of a revision: a package and one checksum of it.

use std::fmt;

use config::text::printable;
use serde::Deserialize;

/// A version (BitBake's `${PF}`) for an architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct Package {
    /// Name, version and recipe revision, such as `busybox-1.36.1-r0`.
    pub version: String,
    /// The architecture, such as `core2-64`.
    pub pkgarch: String,
}

/// A package and the checksum of the task that builds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// The package.
    pub package: Package,
    /// The checksum. Any text is valid.
    pub checksum: String,
}

impl Package {
    /// Creates a package from its version and architecture.
    pub fn new(version: impl Into<String>, pkgarch: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            pkgarch: pkgarch.into(),
        }
    }
}

impl Tuple {
    /// Creates a tuple from its version, architecture and checksum.
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
        let (version, pkgarch) = (printable(&self.version), printable(&self.pkgarch));
        write!(out, "{version} for {pkgarch}")
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checksum = printable(&self.checksum);
        write!(out, "{} with checksum {checksum}", self.package)
    }
}
