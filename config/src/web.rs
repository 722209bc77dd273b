//! The messages about signing in to the web page.

use serde::{Deserialize, Serialize};

/// A link that signs a browser in once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInLink {
    /// The address of the page.
    pub url: String,
    /// The time for which the link is valid, in seconds.
    pub valid_seconds: u64,
}
