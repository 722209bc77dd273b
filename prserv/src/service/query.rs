//! The queries that the writer answers.

use crate::policy::{History, ParentState};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// A query about one package. Its answer is an optional value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Query {
    /// Returns the value of a tuple and assigns a new one if necessary. The answer is `None` if
    /// the unreachable parent is needed.
    Get(Tuple, History, ParentState),
    /// Returns the recorded value of a tuple.
    Test(Tuple, History),
    /// Returns the greatest value of a package.
    Max(Package),
    /// Records a value that another server assigned. The answer is `None` if the service assigns
    /// no values.
    Import(Tuple, Value, Import),
}

/// The condition of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Import {
    /// The value is recorded, also below a greater one.
    Always,
    /// A greater value of the same tuple is answered instead.
    UnlessGreater,
}

impl Query {
    /// Returns the package of the query.
    pub(super) fn package(&self) -> &Package {
        match self {
            Self::Get(tuple, ..) | Self::Test(tuple, _) | Self::Import(tuple, ..) => &tuple.package,
            Self::Max(package) => package,
        }
    }

    /// Returns true if the query may record a row.
    pub(super) fn may_write(&self) -> bool {
        match self {
            Self::Get(..) | Self::Import(..) => true,
            Self::Test(..) | Self::Max(_) => false,
        }
    }
}
