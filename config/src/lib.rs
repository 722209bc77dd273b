//! What all programs of Buildhost must agree on: names, the layout of a volume,
//! manifests, settings, and the messages between programs.
//!
//! Nothing here touches a file, a clock or a random number: every function takes
//! values and returns values, so everything can be tested by comparing values.

mod text;

pub mod names;

pub mod layout;

pub mod manifest;

pub mod machine;

pub mod egress;

pub mod limits;

pub mod task;

pub mod builds;

pub mod queue;

pub mod schedule;

pub mod progress;

pub mod doctor;

pub mod settings;

pub mod tokens;

pub mod printable;

pub use names::{
    BuildId, FileName, MachineName, NameError, Revision, ScheduleName, Tag, ToolchainName,
};
pub use printable::printable;

/// The number of bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
