//! The record of a build: all that is known of it, from its request on.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Interactive, Request, State, Submitter, Target, TransitionError};
use crate::names::{BuildId, FileName, MachineName, Revision, ScheduleName, ToolchainName};
use crate::task::{Digest, Outcome, Package, Source};

/// How many steps of a build are kept; of more, the oldest but the first go.
const PHASES_MAX: usize = 100;

/// A build's place among those that wait: the higher goes first. 0 is the usual one.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Priority(pub i32);

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A step of a build's life. It lasts until the next one begins; the last one,
/// `finished`, has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What began.
    pub state: State,
    /// When.
    pub at: Timestamp,
}

/// What the guest of a build was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInputs {
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The hash of the revision's record of its content, when it has one.
    #[serde(default)]
    pub contents_sha256: Option<Digest>,
    /// The hash of the toolchain that was installed.
    pub toolchain_sha256: Digest,
}

/// What ran the guest of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// QEMU, on the host's own processors.
    Kvm,
    /// QEMU, by emulation.
    Tcg,
    /// A container.
    Nspawn,
}

impl GuestKind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Kvm, "kvm"),
        (Self::Tcg, "tcg"),
        (Self::Nspawn, "nspawn"),
    ];

    /// The kind that a word means.
    pub fn from_name(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == word);
        found.map(|(kind, _)| *kind)
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(kind, _)| kind == self);
        f.pad(word.map_or("", |(_, word)| word))
    }
}

/// How a guest comes to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// It is started from nothing.
    #[default]
    Cold,
    /// It is woken where another one was frozen.
    #[serde(rename = "frozen")]
    Restored,
}

impl fmt::Display for StartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cold => "cold",
            Self::Restored => "frozen",
        })
    }
}

/// What the last guest of a build took of the host, until its result was there.
/// Nothing is told that could not be measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time of the host's processors.
    #[serde(default)]
    pub cpu_milliseconds: Option<u64>,
    /// The most memory of the host that it had at once.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
}

/// How much of something is done. Nothing is known of it while `total` is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many are done.
    pub done: u32,
    /// How many there are.
    pub total: u32,
}

/// What a build says of its progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Sources that are fetched.
    pub clone: Count,
    /// Recipes that are read.
    pub parse: Count,
    /// Tasks that are done.
    pub task: Count,
    /// Errors that it spoke of.
    pub errors: u32,
    /// Warnings that it spoke of.
    pub warnings: u32,
}

/// A package of a build, with the revision that the PR service gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltPackage {
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
    /// Who asked for it.
    pub submitter: Submitter,
    /// Its place among the builds that wait.
    pub priority: Priority,
    /// The machine it is built on.
    pub machine: MachineName,
    /// The toolchain it is built with.
    pub toolchain: ToolchainName,
    /// What people call what is built.
    pub target: Target,
    /// What is built.
    pub sources: Vec<Source>,
    /// The hash of what is asked of the guest: two builds with the same one build
    /// the same sources on the same machine with the same toolchain.
    pub task: Digest,
    /// The builds that must have ended well before this one begins.
    pub after: Vec<BuildId>,
    /// The schedule that asked for it.
    #[serde(default)]
    pub schedule: Option<ScheduleName>,
    /// How far it has come.
    pub state: State,
    /// How it ended, when it is finished.
    pub outcome: Option<Outcome>,
    /// Why it waits, or why it ended as it did; empty when there is nothing to say.
    pub message: String,
    /// How often its guest was started.
    pub attempts: u32,
    /// Before this its guest is not started again.
    pub not_before: Option<Timestamp>,
    /// The machine's revision that its guest was made from.
    pub revision: Option<Revision>,
    /// What else its guest was made from.
    #[serde(rename = "made")]
    pub inputs: Option<BuildInputs>,
    /// What ran its last guest.
    pub guest: Option<GuestKind>,
    /// Whether its last guest was woken from a frozen one.
    #[serde(rename = "frozen")]
    pub restored: bool,
    /// When it was asked for.
    pub submitted: Timestamp,
    /// When its last guest was started.
    pub started: Option<Timestamp>,
    /// When its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// All its steps, in order, with those of earlier attempts.
    pub phases: Vec<Phase>,
    /// What its last guest took.
    pub usage: Usage,
    /// When its guest waits for a person.
    #[serde(default, rename = "life")]
    pub interactive: Interactive,
    /// What it says of its progress.
    pub progress: Progress,
    /// The packages that came out.
    pub packages: Vec<BuiltPackage>,
    /// All files that came out.
    pub artifacts: Vec<Artifact>,
}

impl Build {
    /// The record of a build that was just asked for.
    pub fn new(
        id: BuildId,
        request: Request,
        toolchain: ToolchainName,
        task: Digest,
        submitter: Submitter,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            submitter,
            priority: request.priority,
            machine: request.machine,
            toolchain,
            target: request
                .target
                .unwrap_or_else(|| Target::of(&request.sources)),
            sources: request.sources,
            task,
            after: request.after,
            schedule: None,
            state: State::Queued,
            outcome: None,
            message: String::new(),
            attempts: 0,
            not_before: None,
            revision: None,
            inputs: None,
            guest: None,
            restored: false,
            submitted: now,
            started: None,
            finished: None,
            phases: vec![Phase {
                state: State::Queued,
                at: now,
            }],
            usage: Usage::default(),
            interactive: Interactive {
                breakpoint: request.interactive,
                hold: request.hold,
                held: None,
                copies: None,
            },
            progress: Progress::default(),
            packages: Vec::new(),
            artifacts: Vec::new(),
        }
    }

    /// Moves the build to another state. Nothing else changes [`Build::state`].
    ///
    /// # Errors
    /// If the table of states has no such transition; the build is unchanged then.
    pub fn enter(&mut self, state: State, now: Timestamp) -> Result<(), TransitionError> {
        self.state = self.state.transition(state)?;
        match state {
            State::Starting => self.started = Some(now),
            State::Finished => self.finished = Some(now),
            State::Queued | State::Running | State::Storing => {}
        }
        if self.phases.len() >= PHASES_MAX {
            self.phases.remove(1);
        }
        self.phases.push(Phase { state, at: now });
        Ok(())
    }

    /// How long it took, from the start of its last guest to its end.
    pub fn seconds(&self) -> Option<f64> {
        let (from, to) = self.started.zip(self.finished)?;
        Some(to.duration_since(from).as_secs_f64())
    }

    /// Whether it ended so that what comes after it may begin. One that was never
    /// started, because one before it failed, did not.
    pub fn succeeded(&self) -> bool {
        let skipped = self.outcome == Some(Outcome::Skip) && self.started.is_none();
        self.outcome.is_some_and(Outcome::is_good) && !skipped
    }

    /// When its last guest first asked for something.
    pub fn first_contact(&self) -> Option<Timestamp> {
        let last = self
            .phases
            .iter()
            .rev()
            .take_while(|phase| phase.state != State::Starting);
        let mut last = last.filter(|phase| phase.state == State::Running);
        last.next().map(|phase| phase.at)
    }

    /// How long its last guest took from its start to its first question, in
    /// seconds, and which kind of start it was.
    pub fn startup(&self) -> Option<(StartKind, f64)> {
        let (from, to) = self.started.zip(self.first_contact())?;
        let kind = if self.restored {
            StartKind::Restored
        } else {
            StartKind::Cold
        };
        Some((kind, to.duration_since(from).as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn build() -> Build {
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let task = "0".repeat(64).parse().unwrap();
        let toolchain = "default".parse().unwrap();
        Build::new(
            BuildId(1),
            request,
            toolchain,
            task,
            Submitter::root(),
            at(0),
        )
    }

    #[test]
    fn the_start_of_the_last_guest_is_measured() {
        let mut build = build();
        for (second, state) in [
            (1, State::Starting),
            (5, State::Running),
            (6, State::Queued),
            (7, State::Starting),
        ] {
            build.enter(state, at(second)).unwrap();
        }
        assert_eq!(build.startup(), None);
        build.enter(State::Running, at(9)).unwrap();
        assert_eq!(build.startup(), Some((StartKind::Cold, 2.0)));
        build.enter(State::Finished, at(20)).unwrap();
        assert_eq!(build.startup(), Some((StartKind::Cold, 2.0)));
        assert_eq!(build.finished, Some(at(20)));
        assert_eq!(build.phases.len(), 7);
    }

    #[test]
    fn a_build_that_never_ends_does_not_grow() {
        let mut build = build();
        for second in 1..1000 {
            let state = [State::Queued, State::Starting][usize::from(second % 2 == 1)];
            build.enter(state, at(second)).unwrap();
        }
        assert_eq!(build.phases.len(), PHASES_MAX);
        assert_eq!(build.phases[0].at, at(0));
        assert_eq!(build.phases[PHASES_MAX - 1].at, at(999));
    }

    #[test]
    fn whoever_asks_has_a_name_that_fits_a_table() {
        for name in ["root", "token:ci", "uid:1000", "jürgen@example.org"] {
            assert_eq!(name.parse::<Submitter>().unwrap().as_str(), name);
        }
        for name in ["", "a b", "a\nb", &"x".repeat(101)] {
            assert!(name.parse::<Submitter>().is_err(), "{name}");
        }
    }
}
