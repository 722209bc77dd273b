//! Packages whose last build has failed.

use super::Build;
use crate::names::{BuildId, Revision};

/// A package whose last build on a machine has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingPackage {
    /// The last build.
    pub last: Build,
    /// The first build of the row of failures.
    pub first: BuildId,
    /// The number of failures in a row.
    pub failures: usize,
    /// The last build before them that succeeded, with its revision.
    pub good: Option<(BuildId, Option<Revision>)>,
}
