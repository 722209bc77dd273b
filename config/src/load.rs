//! The use of a resource.

use serde::{Deserialize, Serialize};

/// The capacity of a resource, and its use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The amount in use.
    pub taken: u64,
    /// The capacity; unlimited if `None`.
    pub total: Option<u64>,
}
