//! The start modes of builds.

use config::builds::StartKind;

/// The start mode of builds on an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StartMode {
    /// The start of the next build.
    pub start: StartKind,
    /// `true` if a checkpoint is to be made in the image now.
    pub checkpoint_due: bool,
    /// The reason for this start mode, or its cost.
    pub message: String,
    /// The number of failed restores.
    pub restore_failures: u32,
}
