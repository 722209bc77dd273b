//! The states of a build and the transitions between them.
//!
//! ```text
//!               retry, or the agent stops
//!      ┌────────────┬────────────┬───────────┐
//!      ▼            │            │           │
//!   Queued ───▶ Starting ───▶ Running ───▶ Storing
//!      │            │            │           │
//!      └────────────┴────────────┴───────────┴───▶ Finished
//! ```
//!
//! A build is also queued again when an attempt fails before its guest starts, and
//! enters `Running` once more when a restored guest fails and a cold one replaces it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The build waits for a guest.
    Queued,
    /// The guest starts.
    Starting,
    /// The guest has requested its task.
    Running,
    /// The guest has delivered its result, which is being stored.
    Storing,
    /// The build has an outcome.
    Finished,
}

/// A transition that no build can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a build cannot change from {from} to {to}")]
pub struct TransitionError {
    /// The current state.
    pub from: State,
    /// The requested state.
    pub to: State,
}

/// The effect of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancellation {
    /// The build leaves the queue.
    Dequeue,
    /// The guest is killed.
    Interrupt,
    /// None: the build already has its result.
    TooLate,
}

impl State {
    /// All states in order, with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Queued, "queued"),
        (Self::Starting, "starting"),
        (Self::Running, "running"),
        (Self::Storing, "storing"),
        (Self::Finished, "finished"),
    ];

    /// Returns the state with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(state, _)| *state)
    }

    /// Checks a transition against the table of all states.
    ///
    /// # Errors
    /// If no build can go from this state to `to`.
    pub fn transition(self, to: Self) -> Result<Self, TransitionError> {
        use State::{Finished, Queued, Running, Starting, Storing};
        match (self, to) {
            (Queued, Queued | Starting | Finished)
            | (Starting, Queued | Running | Finished)
            | (Running, Queued | Running | Storing | Finished)
            | (Storing, Queued | Finished) => Ok(to),
            (Queued, Running | Storing)
            | (Starting, Starting | Storing)
            | (Running, Starting)
            | (Storing, Starting | Running | Storing)
            | (Finished, Queued | Starting | Running | Storing | Finished) => {
                Err(TransitionError { from: self, to })
            }
        }
    }

    /// Returns the effect of a cancellation in this state.
    pub fn cancellation(self) -> Cancellation {
        match self {
            Self::Queued => Cancellation::Dequeue,
            Self::Starting | Self::Running => Cancellation::Interrupt,
            Self::Storing | Self::Finished => Cancellation::TooLate,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(state, _)| state == self);
        f.pad(name.map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_build_never_changes() {
        for (to, _) in State::ALL {
            let from = State::Finished;
            assert_eq!(from.transition(to), Err(TransitionError { from, to }));
        }
    }

    #[test]
    fn every_unfinished_build_can_be_queued_again_and_can_finish() {
        for (state, _) in &State::ALL[..4] {
            assert_eq!(state.transition(State::Queued), Ok(State::Queued));
            assert_eq!(state.transition(State::Finished), Ok(State::Finished));
        }
    }

    #[test]
    fn states_are_entered_in_order() {
        let order = State::ALL.map(|(state, _)| state);
        for pair in order.windows(2) {
            assert_eq!(pair[0].transition(pair[1]), Ok(pair[1]));
        }
        let skipped = State::Queued.transition(State::Running).unwrap_err();
        assert_eq!(
            skipped.to_string(),
            "a build cannot change from queued to running"
        );
    }

    #[test]
    fn a_build_with_a_result_cannot_be_canceled() {
        let effects = State::ALL.map(|(state, _)| state.cancellation());
        assert_eq!(
            effects,
            [
                Cancellation::Dequeue,
                Cancellation::Interrupt,
                Cancellation::Interrupt,
                Cancellation::TooLate,
                Cancellation::TooLate
            ]
        );
    }

    #[test]
    fn states_are_parsed_from_their_names() {
        for (state, name) in State::ALL {
            assert_eq!(
                (State::from_name(name), state.to_string()),
                (Some(state), name.to_owned())
            );
        }
        assert_eq!(State::from_name("asleep"), None);
    }
}
