//! When the guest of a build waits for a person: before, while and after it builds.

use std::num::NonZeroUsize;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::task::Breakpoint;

/// The interactive options of a build, and the hold that they led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interactive {
    /// The point at which the guest stops for a person.
    #[serde(rename = "interactive", skip_serializing_if = "Option::is_none")]
    pub breakpoint: Option<Breakpoint>,
    /// Whether the guest is held when the build fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// What waits for a person now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// How many copies of that people look into; known only to the agent that runs
    /// them, and never recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<NonZeroUsize>,
}

/// Something that waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The kind of hold.
    #[serde(rename = "stay")]
    pub kind: HoldKind,
    /// The end of the hold.
    pub until: Timestamp,
}

/// What waits for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldKind {
    /// The guest, in the midst of the build: it goes on afterwards.
    Breakpoint,
    /// The guest of a build that failed, suspended, and its snapshot.
    Guest,
    /// The snapshot of a build that failed.
    Snapshot,
}
