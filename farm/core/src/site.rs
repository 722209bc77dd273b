//! The hosts of a farm as judgments about all of them need them: the state and the offer of each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Offer;

/// The state of a host, the first of these that applies from the last to the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostState {
    /// It takes builds.
    Alive,
    /// It gives signs of life and starts nothing by itself.
    Halted,
    /// It is in a maintenance window.
    Maintenance,
    /// A person has drained it.
    Drained,
    /// It has given no sign of life for half a lease.
    Silent,
    /// It has never polled.
    New,
    /// Its key was taken away.
    Revoked,
}

impl HostState {
    /// All states, with their names.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Alive, "alive"),
        (Self::Halted, "halted"),
        (Self::Maintenance, "maintenance"),
        (Self::Drained, "drained"),
        (Self::Silent, "silent"),
        (Self::New, "new"),
        (Self::Revoked, "revoked"),
    ];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(state, _)| *state == self);
        found.map_or("", |(_, name)| name)
    }

    /// Returns true if the host gives signs of life.
    pub fn is_seen(self) -> bool {
        self < Self::Silent
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for HostState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(state, _)| *state).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("hosts of a farm are {names}, not {text}")
        })
    }
}

/// A host of the farm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The name.
    pub name: String,
    /// The state.
    pub state: HostState,
    /// The last offer.
    pub offer: Arc<Offer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_names_that_they_are_parsed_from() {
        for (state, name) in HostState::ALL {
            assert_eq!(name.parse(), Ok(state));
            assert_eq!(state.to_string(), name);
        }
        let refused = "asleep".parse::<HostState>().unwrap_err();
        assert!(refused.contains("alive, halted"), "{refused}");
    }
}
