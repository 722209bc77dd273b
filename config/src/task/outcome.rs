//! The outcomes of builds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::TaskError;

/// The outcome of a build, in build2's terms. A guest may report any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Nothing has changed since the last build.
    Skip,
    /// The package was built.
    Success,
    /// The package was built, with warnings.
    Warning,
    /// The package could not be built.
    Error,
    /// The build was canceled or exceeded a time limit.
    Abort,
    /// The host or the guest failed. The package may be good or bad.
    Abnormal,
    /// The build was preempted and will run again.
    Interrupt,
}

impl Outcome {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Skip, "skip"),
        (Self::Success, "success"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Abort, "abort"),
        (Self::Abnormal, "abnormal"),
        (Self::Interrupt, "interrupt"),
    ];

    /// Returns true if the build succeeded, so that its packages may be used.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Skip | Self::Success | Self::Warning)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(outcome, _)| outcome == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Outcome {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(outcome, _)| *outcome)
            .ok_or_else(|| TaskError::Value("status", text.to_owned()))
    }
}
