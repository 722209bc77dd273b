//! The planner: a pure function from what was observed to the actions to take.

mod clean;
mod debug_sessions;
mod evict;
mod forecast;
mod forks;
mod images;
mod openings;
mod ready;
mod start;
mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use forecast::{FORECAST_MAX, PlannedStart};

use config::builds::{Build, Priority, Resources, StartKind, State, Submitter};
use config::canary::{TrialBuild, TrialRun, TrialVerdict};
use config::queue::Drained;
use config::task::{BOOTSTRAP_VERSION, Digest, Provenance};
use config::{BuildId, CopyTag, GuestTag, ImageKey, MachineName, Revision, Tag, ToolchainName};
use jiff::Timestamp;
use store::prune::PrunePolicy;
use store::{ImageView, Located, MachineView, Uuid, VolumeId};

use crate::StartMode;
use crate::admission::{Rules, Shares};
use crate::pressure::PressureReadings;
use crate::{Capacity, ResourceRequest, RunningJobs};

pub use openings::{
    Amounts, AuxiliaryOpenings, HostState, OfferedCandidate, OfferedMachine, Opening,
};
pub use ready::REFILL_PAUSE;

/// A build in the queue.
#[derive(Debug, Clone)]
pub struct QueuedBuild {
    /// The build.
    pub id: BuildId,
    /// The image that it needs.
    pub key: ImageKey,
    /// Its submitter.
    pub submitter: Submitter,
    /// Its priority.
    pub priority: Priority,
    /// The resources that it asks for.
    pub resources: Resources,
    /// The auxiliary machines that run beside it.
    pub auxiliaries: Vec<MachineName>,
    /// The time of its submission.
    pub since: Timestamp,
    /// The time of its backoff after a failure of the host. A clock that is set back behind its start
    /// ends it: nothing else says how much of it is left.
    pub backoff: Option<Range<Timestamp>>,
    /// The builds that must succeed before it starts.
    pub after: Vec<BuildId>,
    /// The recorded reason for which it waits.
    pub message: String,
    /// Set if it may run on a revision on trial: it has not run before, and nobody waits for it at
    /// a console or a hold.
    pub may_be_on_trial: bool,
    /// The revision on trial that its controller wants it to run on.
    pub granted_trial: Option<Revision>,
}

impl QueuedBuild {
    /// Returns true if the build waits for the end of its backoff.
    pub(crate) fn is_backing_off(&self, now: Timestamp) -> bool {
        self.backoff.as_ref().is_some_and(|it| it.contains(&now))
    }
}

impl From<Build> for QueuedBuild {
    fn from(build: Build) -> Self {
        let began = build
            .phases
            .last()
            .map_or(build.submitted, |phase| phase.at);
        let backoff = build.not_before.map(|end| began..end);
        Self {
            id: build.id,
            key: ImageKey::of(&build),
            may_be_on_trial: may_be_on_trial(&build),
            granted_trial: build.controller.as_ref().and_then(|it| it.trial),
            auxiliaries: build.auxiliaries().map(|it| it.machine.clone()).collect(),
            submitter: build.submitter,
            priority: build.priority,
            resources: build.resources,
            since: build.submitted,
            backoff,
            after: build.after,
            message: build.message,
        }
    }
}

/// Returns true if a build may run on a revision on trial: it has not run before, and nobody waits for
/// it at a console or a hold.
fn may_be_on_trial(build: &Build) -> bool {
    let is_attended = build.interactive.breakpoint.is_some() || build.interactive.hold;
    // A controller knows the revision that it was offered.
    build.attempts == 0 && !is_attended && build.controller.is_none()
}

/// The state of a build that others depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DependencyState {
    /// It has not ended.
    Pending,
    /// It succeeded: builds that depend on it may start.
    Succeeded,
    /// It failed, was skipped, or is not recorded any more.
    Failed,
}

/// A build that runs, as fair-share accounting needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningBuild {
    /// Its submitter.
    pub submitter: Submitter,
    /// The start of its guest.
    pub since: Timestamp,
    /// Set if its first attempt begins, and its record does not say yet whether that is on a
    /// revision on trial.
    pub may_be_on_trial: bool,
}

impl RunningBuild {
    /// Returns a running build of the records; one without a start began at `now`.
    pub fn new(build: Build, now: Timestamp) -> Self {
        Self {
            since: build.started.unwrap_or(now),
            may_be_on_trial: build.state == State::Queued && may_be_on_trial(&build),
            submitter: build.submitter,
        }
    }
}

/// The failed bootstraps of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapFailure {
    /// The inputs of the image. The failure counts only for these.
    pub inputs: Provenance,
    /// The number of attempts.
    pub attempts: u32,
    /// The error of the last attempt.
    pub message: String,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The machines, each in the volume that it belongs to.
    pub machines: BTreeMap<MachineName, Located>,
    /// The toolchains and the hashes of their content.
    pub toolchains: BTreeMap<ToolchainName, Digest>,
    /// The toolchains that cannot be used, each with the reason.
    pub unusable_toolchains: BTreeMap<ToolchainName, String>,
    /// The builds in the queue, oldest first.
    pub queue: Vec<QueuedBuild>,
    /// The jobs that ran before the machines were observed.
    pub jobs: RunningJobs,
    /// The failed bootstraps.
    pub bootstrap_failures: BTreeMap<ImageKey, BootstrapFailure>,
    /// The builds that have run on the revisions on trial.
    pub trial_builds: BTreeMap<MachineName, Vec<TrialBuild>>,
    /// The start modes of builds on each image.
    pub start_modes: BTreeMap<ImageKey, StartMode>,
    /// The hot images, each with the number of ready guests that it should have.
    pub hot_images: BTreeMap<Uuid, usize>,
    /// The ready guests, and those that are being made, each with its image.
    pub ready: BTreeMap<GuestTag, Uuid>,
    /// The newest build that was ever recorded.
    pub newest_build: Option<BuildId>,
    /// The reason for which no guest may start at all.
    pub halt: Option<String>,
    /// The reasons for which no guest may start in a volume.
    pub halted_volumes: BTreeMap<VolumeId, String>,
    /// The retention rule for old revisions; `None` to keep all.
    pub retention: Option<PrunePolicy>,
    /// The free bytes of each volume.
    pub free: BTreeMap<VolumeId, u64>,
    /// The time of the observation.
    pub now: Timestamp,
    /// The builds that run.
    pub running: BTreeMap<BuildId, RunningBuild>,
    /// The states of the builds that queued ones depend on.
    pub dependencies: BTreeMap<BuildId, DependencyState>,
    /// The drain of the host, if it is drained.
    pub drained: Option<Drained>,
    /// The resources of the host.
    pub capacity: Capacity,
    /// The pressure on the host.
    pub pressure: PressureReadings,
    /// The resource requests of guests.
    pub requests: BTreeMap<ImageKey, ResourceRequest>,
    /// The images of auxiliary machines, on which no build runs.
    pub auxiliaries: BTreeSet<ImageKey>,
    /// The fair-share usage of submitters.
    pub shares: Shares,
    /// The rules of admission.
    pub rules: Rules,
    /// The number of retries of a failed bootstrap.
    pub retries_max: u32,
    /// The number of builds that may be held at once; `None` for no limit.
    pub held_max: Option<usize>,
}

/// The start of a build, with everything that the plan knows about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildStart {
    /// The build.
    pub id: BuildId,
    /// The image that it runs on.
    pub key: ImageKey,
    /// The submitter, for fair-share accounting.
    pub submitter: Submitter,
    /// The volume of the machine.
    pub volume: VolumeId,
    /// The image that the plan saw.
    pub image: Option<Uuid>,
    /// The start mode of that image. A retry starts cold whatever this says.
    pub start: StartKind,
    /// The resources that its guests were admitted with.
    pub request: ResourceRequest,
    /// The trial that it takes part in; `None` on the current revision.
    pub trial: Option<TrialRun>,
}

/// The making of an image, or of a checkpoint in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageStart {
    /// The image.
    pub key: ImageKey,
    /// The volume of the machine.
    pub volume: VolumeId,
    /// The inputs of the image.
    pub inputs: Provenance,
    /// The revision on trial that it is made of; `None` for the current one.
    pub candidate: Option<Revision>,
    /// Set if no build needs the image now: its bootstrap may have to yield.
    pub unasked: bool,
}

/// The making of a ready guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyStart {
    /// The machine and the toolchain.
    pub key: ImageKey,
    /// The volume of the machine.
    pub volume: VolumeId,
    /// The image that the plan saw.
    pub image: Uuid,
}

/// A plan, with the explanations that people get about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The actions to take, in order.
    pub actions: Vec<Action>,
    /// The builds that are ready to start, in scheduling order.
    pub order: Vec<BuildId>,
    /// The reasons for which bootstraps wait.
    pub bootstrap_waits: BTreeMap<ImageKey, String>,
}

/// An action of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Finish the deletions that were begun in a volume.
    FinishDeletions(VolumeId),
    /// Delete a snapshot that belongs to no job.
    DeleteSnapshot(VolumeId, ImageKey, Tag),
    /// Delete an image whose toolchain does not exist any more.
    DeleteImage(VolumeId, ImageKey),
    /// Delete an image that was made for a trial that has ended.
    DeleteTrialImage(VolumeId, ImageKey, Revision),
    /// Promote a revision on trial, or roll it back.
    EndTrial {
        /// The volume of the machine.
        volume: VolumeId,
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// The verdict.
        verdict: TrialVerdict,
        /// The reason.
        reason: String,
    },
    /// Delete old revisions in a volume.
    Prune(VolumeId, Vec<(MachineName, Revision)>),
    /// Cancel a bootstrap or checkpoint whose inputs have changed.
    CancelBootstrap(ImageKey),
    /// Stop a bootstrap that no build needs, in favour of something that does not fit
    /// beside it. It is repeated later.
    YieldBootstrap(ImageKey),
    /// Make an image.
    StartBootstrap(ImageStart),
    /// Make a checkpoint in an image.
    StartCheckpoint(ImageStart),
    /// Start the guest of a build.
    StartBuild(BuildStart),
    /// Make a ready guest.
    PrepareGuest(ReadyStart),
    /// End a ready guest.
    DiscardReadyGuest(GuestTag),
    /// Record the reason for which a build waits.
    SetWaitReason(BuildId, String),
    /// End a queued build, whose lease is given back unused, for this reason.
    GiveBack(BuildId, String),
    /// End a queued build as `abort`.
    Abort(BuildId, String),
    /// End a queued build as `skip`: one that it depends on failed.
    Skip(BuildId, String),
    /// End the guest of a held build; its snapshot stays.
    EvictHold(BuildId),
    /// Release the guest and the snapshot of a held build.
    ReleaseHold(BuildId),
    /// Let a debug session start.
    AdmitDebugSession(CopyTag),
    /// Reject a debug session, with the reason.
    RejectDebugSession(CopyTag, String),
    /// End a debug session.
    EndDebugSession(CopyTag),
    /// Let a build be forked.
    AdmitFork(BuildId),
    /// Reject the fork of a build, with the reason.
    RejectFork(BuildId, String),
}

impl Observed {
    /// Returns the actions to take, in order. Once all of them were taken, the next
    /// plan is empty.
    pub fn plan(&self) -> Vec<Action> {
        self.decide().actions
    }

    /// Returns the actions to take, the builds that are ready to start in scheduling
    /// order, and the reasons for which bootstraps wait.
    pub fn decide(&self) -> Decision {
        let mut actions = self.end_trials();
        actions.extend(self.clean());
        actions.extend(self.prune());
        actions.extend(self.cancel_bootstraps());
        let mut starts = self.start_jobs();
        self.route_to_candidates(&mut starts.actions);
        actions.extend(self.end_debug_sessions());
        actions.extend(self.evict_holds(&starts.actions, &starts.order));
        actions.extend(starts.actions);
        actions.extend(self.ready_guests());
        Decision { actions, ..starts }
    }

    /// Returns the faults of single toolchains. Builds with others continue.
    pub fn toolchain_faults(&self) -> impl Iterator<Item = String> {
        let names = self.unusable_toolchains.keys();
        names.filter_map(|name| self.toolchain_fault(name))
    }

    fn toolchain_fault(&self, name: &ToolchainName) -> Option<String> {
        let reason = self.unusable_toolchains.get(name)?;
        Some(format!("toolchain {name} cannot be used: {reason}"))
    }

    /// Returns the reasons for which the host does not start guests.
    pub fn notices(&self) -> Vec<String> {
        let drained = self
            .drained
            .as_ref()
            .map(|drained| format!("{}; `buildhost undrain` ends it", drained.message()));
        let halts = self
            .halt
            .iter()
            .chain(self.halted_volumes.values())
            .cloned();
        drained.into_iter().chain(halts).collect()
    }

    /// Returns the number of notices of each kind.
    pub fn notice_counts(&self) -> [(&'static str, usize); 5] {
        [
            ("drained", usize::from(self.drained.is_some())),
            (
                "reserve",
                usize::from(self.halt.is_some()) + self.halted_volumes.len(),
            ),
            ("pressure", usize::from(self.capacity.pressure.is_some())),
            ("outcome", self.jobs.unstored.len()),
            ("toolchain", self.unusable_toolchains.len()),
        ]
    }

    /// Returns the sentence about pressure for which no guest starts beside another one.
    pub fn pressure_notice(&self) -> Option<String> {
        Some(self.capacity.pressure?.notice())
    }

    /// Returns the reason for which no guest of a machine may start, if there is one.
    fn halt(&self, machine: &MachineName) -> Option<&String> {
        let volume = self.machines.get(machine).map(|state| state.volume);
        self.halt
            .as_ref()
            .or_else(|| self.halted_volumes.get(&volume?))
    }

    /// Returns the inputs that an image must be made from now; `None` if the machine or
    /// the toolchain is missing.
    pub fn inputs(&self, key: &ImageKey) -> Option<Provenance> {
        let view = &self.machines.get(&key.machine)?.view;
        let current = view.current?;
        let revision = view
            .revisions
            .iter()
            .find(|it| it.revision == current && it.complete)?;
        Some(Provenance {
            revision_uuid: revision.uuid.to_string(),
            toolchain_id: self.toolchains.get(&key.toolchain)?.clone(),
            bootstrap_version: BOOTSTRAP_VERSION,
        })
    }

    /// Returns the complete image for a key, up to date or not.
    fn image(&self, key: &ImageKey) -> Option<&ImageView> {
        let view = &self.machines.get(&key.machine)?.view;
        view.images
            .iter()
            .find(|image| image.toolchain == key.toolchain && image.complete)
    }

    /// Returns the failure of an image's bootstrap with its present inputs.
    fn bootstrap_failure(&self, key: &ImageKey) -> Option<&BootstrapFailure> {
        let failure = self.bootstrap_failures.get(key)?;
        (self.inputs(key).as_ref() == Some(&failure.inputs)).then_some(failure)
    }

    /// Returns the failure of a bootstrap that is not retried any more.
    fn final_failure(&self, key: &ImageKey) -> Option<&BootstrapFailure> {
        self.bootstrap_failure(key)
            .filter(|failure| failure.attempts > self.retries_max)
    }
}

fn key(view: &MachineView, toolchain: &ToolchainName) -> ImageKey {
    ImageKey {
        machine: view.name.clone(),
        toolchain: toolchain.clone(),
    }
}

#[cfg(test)]
mod tests;
