//! The record of a build.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    ControllerTask, Interactive, Priority, Progress, Request, Resources, State, Submitter, Target,
    TransitionError,
};
use crate::auxiliary::AuxiliaryMachine;
use crate::cache::mode::CacheUse;
use crate::canary::{TrialResult, TrialRun};
use crate::hashserv::HashservMode;
use crate::layers::{Reference, RepositoryUrl};
use crate::names::{
    BuildId, FileName, MachineName, ProjectName, Revision, ScheduleName, SecretName, ToolchainName,
};
use crate::task::{Digest, ForkIdentity, Outcome, Package, Source};

/// The largest number of recorded phases. Beyond it, the oldest except the first one is
/// dropped.
const PHASES_MAX: usize = 100;

/// A phase of a build: a state and the time at which the build entered it. It lasts until
/// the next phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// The state.
    pub state: State,
    /// The time.
    pub at: Timestamp,
}

/// The inputs of a build's guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildInputs {
    /// The UUID of the revision's subvolume.
    pub revision_uuid: String,
    /// The hash of the revision's content manifest, if it has one.
    #[serde(default)]
    pub contents_sha256: Option<Digest>,
    /// The hash of the installed toolchain.
    pub toolchain_sha256: Digest,
    /// The hash of the content manifest of the bootstrapped image. `None` if a person typed on
    /// its console while it was made, and for images of agents that made none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<Digest>,
    /// The decisions of the host. `None` in records of agents that did not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<HostPolicy>,
    /// The sources that the host made of repositories.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<SourceOrigin>,
}

/// The repository of which the host made a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceOrigin {
    /// The source.
    pub source: FileName,
    /// The address of the repository.
    pub url: RepositoryUrl,
    /// The commit.
    pub commit: Reference,
}

/// The decisions of the host about a build's guest: what its settings make of the machine's
/// manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPolicy {
    /// The egress policy in force, as in a machine's manifest.
    pub egress: String,
    /// The private networks that egress includes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_private: Vec<String>,
    /// The start timeout in seconds.
    pub start_seconds_max: u64,
    /// The idle timeout in seconds.
    pub silence_seconds_max: u64,
    /// The total timeout in seconds.
    pub total_seconds_max: u64,
    /// The number of processors of the guest. `None` in records of agents that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<NonZeroU32>,
    /// The cache that the guest reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheUse>,
    /// The rights at the hash equivalence service that the guest reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hashserv: Option<HashservMode>,
    /// The memory of the guest, in KiB. `None` in records of agents that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_kib: Option<NonZeroU64>,
    /// The reason for which the guest was not restored from the image's checkpoint. Empty if it
    /// was, or if there was no checkpoint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cold_reason: String,
    /// Options for QEMU or systemd-nspawn from the machine's manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The arrival of a part of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTime {
    /// The offset of its first byte in the log.
    pub offset: u64,
    /// The time at which it arrived.
    pub at: Timestamp,
}

/// The origin of a build that continues as a copy of another one's guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkOrigin {
    /// The build that was forked.
    pub build: BuildId,
    /// The number of this copy, from 1 on.
    pub number: u32,
    /// The number of copies.
    pub copies: u32,
    /// The time for which the guest of that build had run, in seconds.
    pub seconds: u64,
}

impl ForkOrigin {
    /// Returns the identity that the guest is told.
    pub fn identity(&self) -> ForkIdentity {
        ForkIdentity {
            number: self.number,
            copies: self.copies,
        }
    }
}

/// A person who typed on the console of a build's guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typist {
    /// The person.
    pub submitter: Submitter,
    /// The time of the first input of this connection.
    pub at: Timestamp,
}

/// The virtualization of a build's guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// QEMU with KVM.
    Kvm,
    /// QEMU with emulation.
    Tcg,
    /// A container of systemd-nspawn.
    Nspawn,
}

impl GuestKind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Kvm, "kvm"),
        (Self::Tcg, "tcg"),
        (Self::Nspawn, "nspawn"),
    ];

    /// Returns the kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(kind, _)| *kind)
    }
}

impl fmt::Display for GuestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(kind, _)| kind == self);
        f.pad(name.map_or("", |(_, name)| name))
    }
}

/// The ways in which a guest starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartKind {
    /// A cold start: the guest boots.
    #[default]
    Cold,
    /// A warm start: the guest is restored from a checkpoint.
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

/// The resources that the last guest of a build used up to its result. A value that could
/// not be measured is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time.
    #[serde(default)]
    pub cpu_milliseconds: Option<u64>,
    /// The peak of its memory.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
}

/// A package of a build, with the revision that the PR service allocated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltPackage {
    /// The package as the guest reported it.
    #[serde(flatten)]
    pub package: Package,
    /// The recipe's revision and the PR service's value: `r0.2`.
    pub revision: String,
}

/// A file that a build produced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The name.
    pub name: FileName,
    /// The size.
    pub bytes: u64,
    /// The hash of the content.
    pub sha256: Digest,
}

/// The record of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The number.
    pub id: BuildId,
    /// The submitter.
    pub submitter: Submitter,
    /// The priority in the queue.
    pub priority: Priority,
    /// The machine.
    pub machine: MachineName,
    /// The toolchain.
    pub toolchain: ToolchainName,
    /// The name of the build's subject.
    pub target: Target,
    /// The sources.
    pub sources: Vec<Source>,
    /// The hash of the guest's task. Builds with equal hashes build the same sources on
    /// the same machine with the same toolchain.
    pub task: Digest,
    /// The resources that its submitter asked for.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
    /// The builds that must succeed before this one starts.
    pub after: Vec<BuildId>,
    /// The secrets that its guest gets: only their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// The schedule that submitted it.
    #[serde(default)]
    pub schedule: Option<ScheduleName>,
    /// The project that it builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    /// The build that it is a copy of. Its guest continued where that build's was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<ForkOrigin>,
    /// The task of a controller that it is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerTask>,
    /// The state.
    pub state: State,
    /// The outcome, once the build is finished.
    pub outcome: Option<Outcome>,
    /// The wait reason, or the reason for the outcome; may be empty.
    pub message: String,
    /// The number of attempts.
    pub attempts: u32,
    /// The time before which the build is not retried.
    pub not_before: Option<Timestamp>,
    /// The directory of the volume on which its last attempt ran. `None` before the first
    /// attempt, and in records of agents that did not record it.
    #[serde(default)]
    pub volume: Option<PathBuf>,
    /// The machine's revision that its guest is based on.
    pub revision: Option<Revision>,
    /// The inputs of its guest.
    #[serde(rename = "made")]
    pub inputs: Option<BuildInputs>,
    /// The virtualization of its last guest.
    pub guest: Option<GuestKind>,
    /// Set if its last guest was restored from a checkpoint.
    #[serde(rename = "frozen")]
    pub restored: bool,
    /// The time of submission.
    pub submitted: Timestamp,
    /// The start of its last guest.
    pub started: Option<Timestamp>,
    /// The time at which its outcome was recorded.
    pub finished: Option<Timestamp>,
    /// The earlier attempts whose logs are kept. Only the agent fills it in, for its answers; it
    /// is never recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_logs: Vec<u32>,
    /// All phases in order, earlier attempts included.
    pub phases: Vec<Phase>,
    /// The resources that its last guest used.
    pub usage: Usage,
    /// The interactive options, and the current hold.
    #[serde(default, rename = "life")]
    pub interactive: Interactive,
    /// The people who typed on its consoles, in the order of their first input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub typists: Vec<Typist>,
    /// The attempt that ran on a revision on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialRun>,
    /// The reported progress.
    pub progress: Progress,
    /// The packages.
    pub packages: Vec<BuiltPackage>,
    /// All artifacts.
    pub artifacts: Vec<Artifact>,
    /// The number of times that the record was saved. Not part of the API.
    #[serde(skip)]
    pub saves: u64,
    /// Set if a cancellation of the build was accepted. Not part of the API.
    #[serde(skip)]
    pub cancel_requested: bool,
}

impl Build {
    /// Returns true if a guard ends its guest at the deadline of its lease.
    pub fn is_guarded(&self) -> bool {
        self.controller.as_ref().is_some_and(|task| task.guarded)
    }

    /// Returns true if it is a controller's task that is a script.
    pub fn has_script(&self) -> bool {
        self.controller.as_ref().is_some_and(|task| task.script)
    }

    /// Returns the auxiliary machines that run beside it.
    pub fn auxiliaries(&self) -> impl Iterator<Item = &AuxiliaryMachine> {
        self.controller.iter().flat_map(|task| &task.auxiliaries)
    }

    /// Returns true if anything but the request may have influenced the build: a person at its guest, the
    /// guest that it was copied from, or a revision on trial.
    pub fn is_influenced(&self) -> bool {
        let has_left_trial = |run: &TrialRun| {
            let result = run.result.as_ref();
            result.is_some_and(|result| *result != TrialResult::Succeeded)
        };
        self.forked_from.is_some()
            || self.trial.as_ref().is_some_and(|run| !has_left_trial(run))
            || self.interactive.breakpoint.is_some()
            || !self.typists.is_empty()
    }

    /// Returns true if a failure on a revision on trial is repeated on the current one. A farm repeats its
    /// builds itself, maybe on another host.
    pub fn repeats_trial(&self) -> bool {
        !self.is_guarded()
    }

    /// Returns the attempt on a revision on trial while it has no result.
    pub fn running_trial(&self) -> Option<&TrialRun> {
        self.trial.as_ref().filter(|it| it.result.is_none())
    }

    /// Returns the number of attempts that count against the retries. One on a revision on trial
    /// does not.
    pub fn counted_attempts(&self) -> u32 {
        let has_failed = self.trial.as_ref().is_some_and(|it| {
            matches!(
                it.result,
                Some(TrialResult::Failed { .. } | TrialResult::HostFailed { .. })
            )
        });
        self.attempts.saturating_sub(u32::from(has_failed))
    }

    /// Creates the record of a new build.
    pub fn new(
        id: BuildId,
        request: Request,
        toolchain: ToolchainName,
        task: Digest,
        submitter: Submitter,
        now: Timestamp,
    ) -> Self {
        // Without `..`: a new field must be recorded, or be named as one that is not.
        let Request {
            machine,
            toolchain: _,
            sources,
            interactive,
            hold,
            commands,
            target,
            priority,
            resources,
            after,
            secrets,
            submitter: _,
            coalesce: _,
            project,
            controller,
        } = request;
        Self {
            id,
            submitter,
            priority,
            machine,
            toolchain,
            target: target.unwrap_or_else(|| Target::from_sources(&sources)),
            sources,
            task,
            resources,
            after,
            secrets,
            schedule: None,
            project,
            forked_from: None,
            controller,
            state: State::Queued,
            outcome: None,
            message: String::new(),
            attempts: 0,
            not_before: None,
            volume: None,
            revision: None,
            inputs: None,
            guest: None,
            restored: false,
            submitted: now,
            started: None,
            finished: None,
            earlier_logs: Vec::new(),
            phases: vec![Phase {
                state: State::Queued,
                at: now,
            }],
            usage: Usage::default(),
            interactive: Interactive {
                breakpoint: interactive,
                hold,
                commands,
                held: None,
                copies: None,
            },
            typists: Vec::new(),
            trial: None,
            progress: Progress::default(),
            packages: Vec::new(),
            artifacts: Vec::new(),
            saves: 0,
            cancel_requested: false,
        }
    }

    /// Creates the record of a build that continues as a copy of this one's guest. It is starting.
    #[must_use]
    pub fn fork(&self, origin: ForkOrigin, submitter: Submitter, now: Timestamp) -> Self {
        let phase = |state| Phase { state, at: now };
        Self {
            submitter,
            schedule: None,
            forked_from: Some(origin),
            // The controller gave one task, whose result is that of this build.
            controller: None,
            // A build is not forked while it is on a revision on trial.
            trial: None,
            state: State::Starting,
            outcome: None,
            message: String::new(),
            attempts: 1,
            not_before: None,
            submitted: now,
            started: Some(now),
            finished: None,
            phases: vec![phase(State::Queued), phase(State::Starting)],
            usage: Usage::default(),
            interactive: Interactive {
                held: None,
                copies: None,
                ..self.interactive
            },
            packages: Vec::new(),
            artifacts: Vec::new(),
            earlier_logs: Vec::new(),
            saves: 0,
            cancel_requested: false,
            ..self.clone()
        }
    }

    /// Returns the request of the build, with the toolchain, the target and the submitter that
    /// the agent chose where the submitter chose none.
    pub fn request(&self) -> Request {
        Request {
            machine: self.machine.clone(),
            toolchain: Some(self.toolchain.clone()),
            sources: self.sources.clone(),
            interactive: self.interactive.breakpoint,
            hold: self.interactive.hold,
            commands: self.interactive.commands,
            target: Some(self.target.clone()),
            priority: self.priority,
            resources: self.resources.clone(),
            after: self.after.clone(),
            secrets: self.secrets.clone(),
            submitter: Some(self.submitter.clone()),
            // A build exists because nothing was coalesced.
            coalesce: false,
            project: self.project.clone(),
            // The task of a controller is built once; a repetition is a build of its own.
            controller: None,
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

    /// Returns its duration in seconds, from the start of its last guest.
    pub fn seconds(&self) -> Option<f64> {
        let (from, to) = self.started.zip(self.finished)?;
        Some(to.duration_since(from).as_secs_f64())
    }

    /// Returns true if the build succeeded, so that builds after it may start. A build that
    /// was skipped because of a failed dependency did not.
    pub fn succeeded(&self) -> bool {
        let was_skipped = self.outcome == Some(Outcome::Skip) && self.started.is_none();
        self.outcome.is_some_and(Outcome::is_good) && !was_skipped
    }

    /// Returns the time of the first request of its last guest.
    pub fn first_contact(&self) -> Option<Timestamp> {
        self.phases
            .iter()
            .rev()
            .take_while(|phase| phase.state != State::Starting)
            .find(|phase| phase.state == State::Running)
            .map(|phase| phase.at)
    }

    /// Returns the reason for which the last guest was not restored from a checkpoint that its
    /// image had.
    pub fn cold_reason(&self) -> Option<&str> {
        let policy = self.inputs.as_ref()?.policy.as_ref()?;
        Some(policy.cold_reason.as_str()).filter(|reason| !reason.is_empty())
    }

    /// Returns the kind of the last guest's start, and its duration in seconds up to the
    /// guest's first request.
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
mod tests;
