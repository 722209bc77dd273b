//! The progress of a build, as its log reports it.

use serde::{Deserialize, Serialize};

/// A number of finished items. The progress is unknown while `total` is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The number of finished items.
    pub done: u32,
    /// The number of all items.
    pub total: u32,
}

/// The progress of a build, as its log reports it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Fetched sources.
    pub clone: Count,
    /// Parsed recipes.
    pub parse: Count,
    /// Finished tasks.
    pub task: Count,
    /// Reported errors.
    pub errors: u32,
    /// Reported warnings.
    pub warnings: u32,
    /// The use of what the toolchain has preloaded in the checkpoint. `None` if the build does not
    /// report it, as one without such a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preload: Option<PreloadUse>,
}

/// The use that a build makes of what its toolchain has preloaded in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PreloadUse {
    /// The build continues with it.
    Used,
    /// It does not match the sources of the build, which starts without it. The log has the reason.
    Outdated,
    /// It does not work, and the build starts without it. The log has the reason.
    Failed,
}

impl PreloadUse {
    /// Parses the word in a progress line.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "used" => Self::Used,
            "outdated" => Self::Outdated,
            "failed" => Self::Failed,
            _ => return None,
        })
    }
}
