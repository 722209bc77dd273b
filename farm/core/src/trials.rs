//! Trials of revisions over the whole farm: what hosts are told, and what they have.

use serde::{Deserialize, Serialize};

use crate::Published;

/// The number of a trial among all trials of a farm. A later one has a higher number.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TrialNumber(pub u64);

/// A trial, as hosts are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialOrder {
    /// The number. An answer that a coordinator took from what it read before has no higher one.
    pub number: TrialNumber,
    /// The revision and its content.
    #[serde(flatten)]
    pub candidate: Published,
    /// The reason for which the revision was rolled back; `None` while the trial is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// The last trial of a machine on a host that the farm has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTrial {
    /// The number.
    pub number: TrialNumber,
    /// True until the host has noted the end.
    pub is_open: bool,
}
