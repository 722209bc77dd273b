//! What the agent and its clients tell each other about builds: the bodies of the
//! administration API.

mod interactive;
mod labels;
mod listing;
mod record;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{BuildId, MachineName, ToolchainName};
use crate::task::{Breakpoint, Source};

pub use interactive::{Hold, HoldKind, Interactive};
pub use labels::{LabelError, Submitter, Target};
pub use listing::{Cursor, LISTED_MAX, ListQuery, Sort, SortKey};
pub use record::{
    Artifact, Build, BuildInputs, BuiltPackage, Count, GuestKind, Phase, Priority, Progress,
    StartKind, Usage,
};

/// The socket of the administration API, in the agent's run directory.
pub const SOCKET: &str = "agent.sock";

/// What the connection becomes that asks for a guest's console: bytes both ways.
pub const CONSOLE_PROTOCOL: &str = "buildhost-console";

/// Where the artifacts of a build came from: a file beside them.
pub const PROVENANCE: &str = "provenance.json";

/// Asks for a build. The sources have been handed in before, by their hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The machine to build on.
    pub machine: MachineName,
    /// The toolchain to build with; the agent's default when it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<ToolchainName>,
    /// What to build.
    pub sources: Vec<Source>,
    /// Where its guest stops for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Breakpoint>,
    /// Whether its guest is held when it fails.
    #[serde(default)]
    pub hold: bool,
    /// What people call what is built; by default what the first source is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// Its place among the builds that wait.
    #[serde(default)]
    pub priority: Priority,
    /// The builds that must have ended well before this one begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<BuildId>,
    /// For whom it is asked; who asks when it is left out. Only administrators may
    /// say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// Whether a build that is under way and would do the same is as good.
    #[serde(default = "yes", rename = "attach")]
    pub coalesce: bool,
}

fn yes() -> bool {
    true
}

/// How far a build has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for a guest.
    Queued,
    /// Its guest starts.
    Starting,
    /// Its guest has asked for the task.
    Running,
    /// Its result is there and is being stored.
    Storing,
    /// It has an outcome.
    Finished,
}

impl State {
    /// All states in order, with the words for them.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Queued, "queued"),
        (Self::Starting, "starting"),
        (Self::Running, "running"),
        (Self::Storing, "storing"),
        (Self::Finished, "finished"),
    ];

    /// The state that a word means.
    pub fn from_name(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, w)| *w == word)
            .map(|(state, _)| *state)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(state, _)| state == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

/// What becomes of a request to cancel a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It is taken out of the queue.
    Drop,
    /// Its guest is ended.
    Interrupt,
    /// Nothing: its result is there already.
    TooLate,
}

/// What a request to cancel means for a build in `state`.
pub fn cancel(state: State) -> Cancel {
    match state {
        State::Queued => Cancel::Drop,
        State::Starting | State::Running => Cancel::Interrupt,
        State::Storing | State::Finished => Cancel::TooLate,
    }
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The host's name.
    pub name: String,
    /// The version of the agent.
    pub version: String,
    /// What its machines can do.
    pub machines: Vec<Readiness>,
    /// How many builds wait.
    pub queued: usize,
    /// How many guests run, bootstraps among them.
    pub guests: usize,
    /// What keeps the host from its work, each with the way out.
    pub notices: Vec<String>,
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Outdated => "outdated",
            Self::Missing => "missing",
            Self::Failed => "failed",
        })
    }
}

/// Whether a machine can build with a toolchain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// How far the bootstrapped image is.
    pub image: ImageState,
    /// Why, when there is something to say.
    pub message: String,
    /// How its next build starts.
    #[serde(default)]
    pub start: StartKind,
    /// Why it starts so, or what that costs.
    #[serde(default)]
    pub start_message: String,
    /// How many frozen guests were given up since the agent was started.
    #[serde(default)]
    pub evictions: u32,
}

/// How far a bootstrapped image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// It is there and up to date.
    Ready,
    /// It is out of date and serves until the new one is ready.
    Outdated,
    /// There is none yet.
    Missing,
    /// It could not be made.
    Failed,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and the way out.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_has_its_result_cannot_be_cancelled() {
        let verdicts = State::ALL.map(|(state, _)| cancel(state));
        assert_eq!(
            verdicts,
            [
                Cancel::Drop,
                Cancel::Interrupt,
                Cancel::Interrupt,
                Cancel::TooLate,
                Cancel::TooLate
            ]
        );
    }

    #[test]
    fn every_state_is_read_from_its_word() {
        for (state, word) in State::ALL {
            assert_eq!(
                (State::from_name(word), state.to_string()),
                (Some(state), word.to_owned())
            );
        }
        assert_eq!(State::from_name("asleep"), None);
    }

    #[test]
    fn a_request_with_a_bad_name_or_a_strange_key_is_refused() {
        for text in [
            r#"{"machine": "../x", "sources": []}"#,
            r#"{"machine": "x", "sources": [], "colour": 1}"#,
            r#"{"machine": "x", "sources": [{"name": "a/b", "sha256": ""}]}"#,
        ] {
            assert!(serde_json::from_str::<Request>(text).is_err(), "{text}");
        }
    }
}
