//! Breakpoints of interactive builds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Outcome, TaskError, required};
use crate::manifest::{self, Manifest};

/// The point at which an interactive build stops for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Breakpoint {
    /// Before the toolchain's `build`, with the sources in place.
    Start,
    /// After a result with warnings or a worse one, before the guest puts it.
    Warning,
    /// After a failed result, before the guest puts it.
    Error,
    /// At once, in a debug copy of a failed guest, which builds nothing.
    Attach,
}

impl Breakpoint {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Start, "start"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Attach, "attach"),
    ];

    /// Returns true if a build with this result stops here.
    pub fn stops_after(self, result: Outcome) -> bool {
        match self {
            Self::Start | Self::Attach => false,
            Self::Warning => !matches!(result, Outcome::Skip | Outcome::Success),
            Self::Error => !result.is_good(),
        }
    }
}

impl fmt::Display for Breakpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(point, _)| point == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

impl FromStr for Breakpoint {
    type Err = TaskError;

    fn from_str(text: &str) -> Result<Self, TaskError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found
            .map(|(point, _)| *point)
            .ok_or_else(|| TaskError::Value("interactive", text.chars().take(40).collect()))
    }
}

/// The state of a guest at its breakpoint: the content of [`super::BREAKPOINT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakpointState {
    /// The guest waits for a person.
    Waiting,
    /// The guest has continued.
    Resumed,
}

impl BreakpointState {
    /// Returns the text of the file.
    pub fn print(self) -> String {
        let state = match self {
            Self::Waiting => "waiting",
            Self::Resumed => "over",
        };
        manifest::print_local(&[Manifest::new().with("state", state)])
    }

    /// Parses the text of the file.
    ///
    /// # Errors
    /// If the state is missing or unknown.
    pub fn parse(text: &str) -> Result<Self, TaskError> {
        let list = manifest::parse_local(text)?;
        let head = list.first().ok_or(TaskError::Empty)?;
        match required(head, "state")? {
            "waiting" => Ok(Self::Waiting),
            "over" => Ok(Self::Resumed),
            other => Err(TaskError::Value("state", other.chars().take(40).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_states_parse_to_the_same_state() {
        for state in [BreakpointState::Waiting, BreakpointState::Resumed] {
            assert_eq!(BreakpointState::parse(&state.print()), Ok(state));
        }
        assert!(BreakpointState::parse(": 1\nstate: lost\n").is_err());
        assert!(BreakpointState::parse("").is_err());
        for (breakpoint, word) in Breakpoint::ALL {
            assert_eq!(word.parse(), Ok(breakpoint));
        }
    }

    #[test]
    fn a_build_stops_at_results_of_the_breakpoints_severity_or_worse() {
        let stops = |point: Breakpoint| {
            let results = [Outcome::Success, Outcome::Warning, Outcome::Error];
            results.map(|result| point.stops_after(result))
        };
        assert_eq!(stops(Breakpoint::Start), [false, false, false]);
        assert_eq!(stops(Breakpoint::Warning), [false, true, true]);
        assert_eq!(stops(Breakpoint::Error), [false, false, true]);
    }
}
