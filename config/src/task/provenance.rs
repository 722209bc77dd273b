//! The provenance of a bootstrapped image.

use super::{Digest, TaskError, required};
use crate::manifest::{self, Manifest};

/// The provenance of a bootstrapped image, which the agent writes into the image as
/// [`BOOTSTRAP`](super::BOOTSTRAP). The image is outdated if any value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The hash of the toolchain's content.
    pub toolchain_id: Digest,
    /// The version of the bootstrap procedure.
    pub bootstrap_version: u32,
}

/// The version of the bootstrap procedure. Raise it to rebuild all existing images.
pub const BOOTSTRAP_VERSION: u32 = 1;

impl Provenance {
    /// Returns the text of the file.
    pub fn print(&self) -> String {
        manifest::print_local(&[Manifest::new()
            .with("revision-uuid", &self.revision_uuid)
            .with("toolchain-id", &self.toolchain_id)
            .with("bootstrap-version", &self.bootstrap_version)])
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// The first missing or invalid value.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse_local(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let version = required(head, "bootstrap-version")?;
        let invalid = |_| TaskError::Value("bootstrap-version", version.to_owned());
        Ok(Self {
            revision_uuid: required(head, "revision-uuid")?.to_owned(),
            toolchain_id: required(head, "toolchain-id")?.parse()?,
            bootstrap_version: version.parse().map_err(invalid)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_provenance_parses_to_the_same_values() {
        let provenance = Provenance {
            revision_uuid: "u-u".into(),
            toolchain_id: "0".repeat(64).parse().unwrap(),
            bootstrap_version: 1,
        };
        assert_eq!(Provenance::parse(&provenance.print()), Ok(provenance));
    }
}
