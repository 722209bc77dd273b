//! The script of a controller's task, as it is kept beside the build.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The script that the guest of a controller's task runs, with the texts that its log must not have.
/// It has secrets itself.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenScript {
    /// The script.
    pub script: String,
    /// The texts that are masked, in the order of the secrets of the build.
    pub masked: Vec<String>,
}

impl fmt::Debug for GivenScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masked = self.masked.len();
        f.debug_struct("GivenScript")
            .field("masked", &masked)
            .finish_non_exhaustive()
    }
}
