//! Interactive builds and holds: guests that wait for a person.

use std::num::NonZeroUsize;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::exec::CommandLimits;
use crate::task::Breakpoint;

/// The interactive options of a build, and its current hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interactive {
    /// The point at which the guest stops for a person.
    #[serde(rename = "interactive", skip_serializing_if = "Option::is_none")]
    pub breakpoint: Option<Breakpoint>,
    /// Holds the guest when the build fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// The limits of a driven guest; `None` for all other builds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandLimits>,
    /// The current hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// The number of debug copies of the hold. Only the agent that runs them fills it
    /// in, for its answers; it is never recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<NonZeroUsize>,
}

/// A guest or a snapshot that is kept for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The kind of hold.
    #[serde(rename = "stay")]
    pub kind: HoldKind,
    /// The time at which it ends.
    pub until: Timestamp,
}

/// The kinds of hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// A running guest, stopped at a breakpoint; the build continues afterwards.
    Breakpoint,
    /// The suspended guest of a failed build, with its snapshot.
    Guest,
    /// The snapshot of a failed build.
    Snapshot,
}
