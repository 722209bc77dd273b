//! The state of a trial, as the agent reports it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::canary::Terms;
use crate::names::{ControllerName, MachineName, Revision};

/// The state of a trial, as the agent reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// The machine.
    pub machine: MachineName,
    /// The candidate.
    pub revision: Revision,
    /// The terms.
    pub terms: Terms,
    /// The start.
    pub since: Timestamp,
    /// The number of builds that have succeeded on the candidate.
    pub succeeded: usize,
    /// The number of builds that must succeed: each strike adds as many as the terms name.
    pub needed: usize,
    /// The number of builds that failed on the candidate and succeeded on the current revision.
    pub strikes: usize,
    /// The number of builds that run on the candidate.
    pub running: usize,
    /// The number of builds that failed on the candidate and have not been repeated.
    pub repeating: usize,
    /// The farm that decides, from builds on all of its hosts; `None` if this host decides on the terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub farm: Option<ControllerName>,
}
