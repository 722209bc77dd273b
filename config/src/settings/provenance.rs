//! The settings of the provenance of builds.

use std::path::PathBuf;

use super::reader::Reader;

/// The settings of the provenance of builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The directory of the signing keys; provenance is not signed if `None`.
    pub keys: Option<PathBuf>,
}

pub(super) fn provenance(reader: &mut Reader<'_>) -> Provenance {
    Provenance {
        keys: reader.optional_path("provenance.keys"),
    }
}
