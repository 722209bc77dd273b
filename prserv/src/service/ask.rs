//! What the clerk is asked.

use crate::policy::{History, Parent};
use crate::tuple::{Package, Tuple};
use crate::value::Value;

/// A question about one package. Every answer is a value or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The value of a tuple, giving a new one if need be. `None` when only the parent could tell.
    Get(Tuple, History, Parent),
    /// The recorded value of a tuple.
    Test(Tuple, History),
    /// The greatest value of a package.
    Max(Package),
    /// Record a value given elsewhere.
    Import(Tuple, Value),
}

impl Ask {
    /// The package it is about.
    pub fn package(&self) -> &Package {
        match self {
            Self::Get(tuple, ..) | Self::Test(tuple, _) | Self::Import(tuple, _) => &tuple.package,
            Self::Max(package) => package,
        }
    }

    /// Whether the answer may have to be written down first.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Get(..) | Self::Import(..) => true,
            Self::Test(..) | Self::Max(_) => false,
        }
    }
}
