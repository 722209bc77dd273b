//! What an image was made from, as it says itself.

use super::{Digest, TaskError, need};
use crate::manifest::{self, Manifest};

/// What a bootstrapped image was made from: the file [`BOOTSTRAP`](super::BOOTSTRAP) in it, written
/// by the agent. The image is out of date when any of it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The identity of the toolchain's content.
    pub toolchain_id: Digest,
    /// The version of our way to bootstrap.
    pub bootstrap_version: u32,
}

/// The version of our way to bootstrap; raise it when old images must be made anew.
pub const BOOTSTRAP_VERSION: u32 = 1;

impl Provenance {
    /// The text of the file.
    pub fn print(&self) -> String {
        manifest::print(&[Manifest::new()
            .with("revision-uuid", &self.revision_uuid)
            .with("toolchain-id", &self.toolchain_id)
            .with("bootstrap-version", &self.bootstrap_version)])
    }

    /// Reads the file.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        let version = need(head, "bootstrap-version")?;
        let wrong = |_| TaskError::Value("bootstrap-version", version.to_owned());
        Ok(Self {
            revision_uuid: need(head, "revision-uuid")?.to_owned(),
            toolchain_id: need(head, "toolchain-id")?.parse()?,
            bootstrap_version: version.parse().map_err(wrong)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_tells_what_it_was_made_from() {
        let provenance = Provenance {
            revision_uuid: "u-u".into(),
            toolchain_id: "0".repeat(64).parse().unwrap(),
            bootstrap_version: 1,
        };
        assert_eq!(Provenance::parse(&provenance.print()), Ok(provenance));
    }
}
