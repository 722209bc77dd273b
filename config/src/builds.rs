//! What the agent and its clients tell each other about builds: the bodies of the
//! administration API.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{BuildId, FileName, MachineName, Revision, ToolchainName};
use crate::task::{Digest, Outcome, Package, Source};

/// The socket of the administration API, in the agent's run directory.
pub const SOCKET: &str = "agent.sock";

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
    pub fn from_word(word: &str) -> Option<Self> {
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

/// A package of a build, with the revision that the PR service gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// What the guest said of it.
    #[serde(flatten)]
    pub package: Package,
    /// The revision in the recipe and the PR service's value: `r0.2`.
    pub revision: String,
}

/// A file that a build gave out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its name.
    pub name: FileName,
    /// Its size.
    pub bytes: u64,
    /// The hash of its content.
    pub sha256: Digest,
}

/// The record of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its number.
    pub id: BuildId,
    /// The machine it is built on.
    pub machine: MachineName,
    /// The toolchain it is built with.
    pub toolchain: ToolchainName,
    /// What is built.
    pub sources: Vec<Source>,
    /// How far it has come.
    pub state: State,
    /// How it ended, when it is finished.
    pub outcome: Option<Outcome>,
    /// Why it waits, or why it ended as it did; empty when there is nothing to say.
    pub message: String,
    /// How often its guest was started.
    pub attempts: u32,
    /// The machine's revision that its guest was made from.
    pub revision: Option<Revision>,
    /// When it was asked for.
    pub submitted: Timestamp,
    /// When its last guest was started.
    pub started: Option<Timestamp>,
    /// When its last guest first asked for something.
    #[serde(default)]
    pub contacted: Option<Timestamp>,
    /// Whether its last guest was woken from a frozen one.
    #[serde(default)]
    pub frozen: bool,
    /// When its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// The packages that came out.
    pub packages: Vec<Built>,
    /// All files that came out.
    pub artifacts: Vec<Artifact>,
}

impl Build {
    /// How long its last guest took from its start to its first question, in
    /// seconds, and which kind of start it was.
    pub fn start(&self) -> Option<(Start, f64)> {
        let (from, to) = self.started.zip(self.contacted)?;
        let kind = if self.frozen {
            Start::Frozen
        } else {
            Start::Cold
        };
        Some((kind, to.duration_since(from).as_secs_f64()))
    }
}

/// How a guest comes to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// It is started from nothing.
    #[default]
    Cold,
    /// It is woken where another one was frozen.
    Frozen,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "cold",
            Self::Frozen => "frozen",
        })
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

impl fmt::Display for Image {
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
    pub image: Image,
    /// Why, when there is something to say.
    pub message: String,
    /// How its next build starts.
    #[serde(default)]
    pub start: Start,
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
pub enum Image {
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
                (State::from_word(word), state.to_string()),
                (Some(state), word.to_owned())
            );
        }
        assert_eq!(State::from_word("asleep"), None);
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
