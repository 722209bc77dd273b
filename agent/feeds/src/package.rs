//! Packages as guests have put them: the control file in a `.deb` or `.ipk`.
//!
//! The content is that of a guest. All decoders are memory-safe, and bounded in memory and output; the
//! archive `ar` is read here because the known reader allocates what a header says.

mod archive;

use std::fmt;
use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use crate::control::{ControlError, Paragraph};

/// The largest size of a control file. The largest of Debian have 20 KiB.
pub const CONTROL_BYTES_MAX: u64 = 256 * 1024;

/// The fields that an index adds. What a package says there is dropped.
const RESERVED: [&str; 9] = [
    "Filename",
    "Size",
    "MD5sum",
    "SHA1",
    "SHA256",
    "SHA512",
    "Status",
    "Installed-Time",
    "Auto-Installed",
];

/// The kind of a package, by the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// A package for dpkg and apt.
    Deb,
    /// A package for opkg.
    Ipk,
}

impl PackageKind {
    /// Returns the kind of a file; `None` if it is no package.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.rsplit_once('.')? {
            (_, "deb") => Some(Self::Deb),
            (_, "ipk") => Some(Self::Ipk),
            _ => None,
        }
    }
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Deb => "deb",
            Self::Ipk => "ipk",
        })
    }
}

/// The identity of a package: a client takes two packages with the same one for the same file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PackageId {
    /// The kind.
    pub kind: PackageKind,
    /// The name.
    pub name: String,
    /// The architecture.
    pub architecture: String,
    /// The version.
    pub version: String,
}

impl fmt::Display for PackageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            version,
            architecture,
            kind,
        } = self;
        write!(f, "{name} {version} ({architecture}, {kind})")
    }
}

impl PackageId {
    /// Returns the usual name of the file, which has no epoch.
    pub fn file_name(&self) -> String {
        let Self {
            name,
            version,
            architecture,
            kind,
        } = self;
        let version = version
            .split_once(':')
            .map_or(version.as_str(), |(_, rest)| rest);
        format!("{name}_{version}_{architecture}.{kind}")
    }
}

/// A failure to read a package.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The file cannot be read.
    #[error("cannot read the package")]
    Read(#[source] io::Error),
    /// The file is no package.
    #[error("the file is no package: {0}")]
    Form(String),
    /// The control file is not usable.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl PackageError {
    /// Returns true if the host could not read the file; otherwise the package is at fault.
    pub fn is_of_the_host(&self) -> bool {
        matches!(self, Self::Read(_))
    }
}

/// Reads the control file of a package.
///
/// # Errors
/// The file cannot be read, or is not a package that a feed may have.
pub fn read(kind: PackageKind, file: &File) -> Result<(PackageId, Paragraph), PackageError> {
    let text = archive::control(file)?;
    let mut control = Paragraph::parse(&text)?;
    for field in RESERVED {
        control.remove(field);
    }
    Ok((identify(kind, &control)?, control))
}

/// Returns the identity of a package with a control file.
fn identify(kind: PackageKind, control: &Paragraph) -> Result<PackageId, ControlError> {
    let field = |name: &'static str, more: &str, first: fn(u8) -> bool| {
        let value = control.get(name).ok_or(ControlError::Missing(name))?;
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(char::from(byte));
        let is_good = (1..=100).contains(&value.len())
            && value.bytes().all(is_allowed)
            && value.bytes().next().is_some_and(first);
        if is_good {
            Ok(value.to_owned())
        } else {
            let value = value.chars().take(100).collect();
            Err(ControlError::Value { name, value })
        }
    };
    let alphanumeric = |byte: u8| byte.is_ascii_alphanumeric();
    Ok(PackageId {
        kind,
        name: field("Package", "+-._", alphanumeric)?,
        architecture: field("Architecture", "-_", alphanumeric)?,
        version: field("Version", ".+~:-_", alphanumeric)?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
