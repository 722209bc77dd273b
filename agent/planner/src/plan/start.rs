//! The jobs to start, and the reason for which every other queued build waits.

use std::collections::{BTreeMap, BTreeSet};

use config::builds::{Build, StartKind, Submitter};
use config::{BuildId, ImageKey};
use jiff::Timestamp;
use store::VolumeId;

use super::{Action, BuildStart, DependencyState, ImageStart, Observed, QueuedBuild};
use crate::admission::{
    Allocation, Candidate, ResourcePool, RunningUsage, Shares, Unschedulable, UsageInterval, admit,
    listed,
};
use crate::{JobId, ResourceRequest};

/// The readiness of a queued build.
enum BuildReadiness {
    /// It could start now.
    Ready(Candidate),
    /// It waits, for this reason.
    Waiting(String),
    /// It waits for its image.
    NeedsImage,
    /// It waits for the end of its backoff. The reason was recorded when it was queued.
    BackingOff,
    /// It has ended.
    Ended(Action),
}

impl Observed {
    /// Returns the jobs to start while there are resources, the new wait reasons of the
    /// other builds, and the ready builds in scheduling order. One bootstrap at least is
    /// under way when one is needed; otherwise builds go first.
    pub(super) fn start_jobs(&self) -> (Vec<Action>, Vec<BuildId>) {
        let mut pool = self.pool();
        let mut actions = self.admit_debug_sessions(&mut pool);
        let mut missing = self.missing_images();
        if self.jobs.images.is_empty() {
            self.start_images(
                &mut missing,
                Action::StartBootstrap,
                1,
                &mut pool,
                &mut actions,
            );
        }
        let readiness: Vec<_> = self
            .queue
            .iter()
            .map(|queued| (queued, self.readiness_of(queued)))
            .collect();
        let candidates: Vec<_> = readiness
            .iter()
            .filter_map(|(_, readiness)| match readiness {
                BuildReadiness::Ready(candidate) => Some(candidate.clone()),
                _ => None,
            })
            .collect();
        let verdicts = admit(&candidates, &mut pool, &self.shares, &self.rules, self.now);
        let order: Vec<_> = verdicts.iter().map(|(id, _)| *id).collect();
        let verdicts: BTreeMap<_, _> = verdicts.into_iter().collect();
        let by_id: BTreeMap<_, _> = candidates.iter().map(|it| (it.id, it)).collect();
        let admitted = order.iter().filter(|id| verdicts[id].is_ok());
        actions.extend(admitted.map(|id| Action::StartBuild(self.start(by_id[id]))));
        let all = usize::MAX;
        self.start_images(
            &mut missing,
            Action::StartBootstrap,
            all,
            &mut pool,
            &mut actions,
        );
        let mut checkpoints = self.missing_checkpoints();
        self.start_images(
            &mut checkpoints,
            Action::StartCheckpoint,
            all,
            &mut pool,
            &mut actions,
        );
        for (queued, readiness) in readiness {
            let reason = match readiness {
                BuildReadiness::Ready(candidate) => match verdicts.get(&candidate.id) {
                    Some(Err(unschedulable)) => format!("for {unschedulable}"),
                    _ => continue,
                },
                BuildReadiness::Waiting(reason) => reason,
                BuildReadiness::NeedsImage => self.image_reason(&queued.key, &actions, &pool),
                BuildReadiness::BackingOff => continue,
                BuildReadiness::Ended(action) => {
                    actions.push(action);
                    continue;
                }
            };
            if reason != queued.message {
                actions.push(Action::SetWaitReason(queued.id, reason));
            }
        }
        (actions, order)
    }

    fn start(&self, candidate: &Candidate) -> BuildStart {
        let mode = self.start_modes.get(&candidate.key);
        BuildStart {
            id: candidate.id,
            key: candidate.key.clone(),
            submitter: candidate.submitter.clone(),
            volume: candidate.volume,
            image: self.image(&candidate.key).map(|image| image.uuid),
            start: mode.map_or(StartKind::Cold, |mode| mode.start),
            request: candidate.request,
        }
    }

    /// Returns the resources of the host with the allocations of the jobs that run.
    pub fn pool(&self) -> ResourcePool {
        // A suspended guest keeps its memory.
        let allocations = self
            .jobs
            .guests()
            .map(|(job, key)| self.allocation(job, key))
            .collect();
        ResourcePool::new(self.capacity.clone(), allocations)
    }

    /// Returns the builds that run, as fair-share accounting counts them.
    pub fn usage(&self) -> BTreeMap<BuildId, RunningUsage> {
        let usage = |(id, key): (&BuildId, &ImageKey)| {
            let running = self.running.get(id)?;
            let usage = RunningUsage {
                submitter: running.submitter.clone(),
                since: running.since,
                request: self.request(key),
            };
            Some((*id, usage))
        };
        self.jobs.builds.iter().filter_map(usage).collect()
    }

    /// Rebuilds the shares of submitters from the records of earlier builds.
    pub fn shares_of(&self, builds: &[Build]) -> Shares {
        let intervals: Vec<_> = builds
            .iter()
            .flat_map(|build| UsageInterval::all_of(build, self.request(&ImageKey::of(build))))
            .collect();
        Shares::of_history(&intervals, &self.pool())
    }

    /// Returns the submitters of builds that only resources keep from starting.
    pub fn contenders(&self) -> BTreeSet<Submitter> {
        self.queue
            .iter()
            .filter(|queued| matches!(self.readiness_of(queued), BuildReadiness::Ready(_)))
            .map(|queued| queued.submitter.clone())
            .collect()
    }

    /// Returns the time at which a backoff ends, if any build backs off.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.queue
            .iter()
            .filter_map(|queued| queued.not_before)
            .filter(|time| *time > self.now)
            .min()
    }

    fn request(&self, key: &ImageKey) -> ResourceRequest {
        self.requests.get(key).copied().unwrap_or_default()
    }

    fn volume(&self, key: &ImageKey) -> VolumeId {
        let state = self.machines.get(&key.machine);
        state.map_or(VolumeId(0), |state| state.volume)
    }

    pub(super) fn allocation(&self, job: JobId, key: &ImageKey) -> Allocation {
        Allocation {
            job,
            machine: key.machine.clone(),
            volume: self.volume(key),
            request: self.request(key),
        }
    }

    fn check_bootstrap(&self, key: &ImageKey, pool: &ResourcePool) -> Option<Unschedulable> {
        let mut request = self.request(key);
        // The limit of a machine is one of its builds.
        request.machine_max = None;
        pool.check(&key.machine, self.volume(key), &request)
    }

    /// Starts at most `most` of these images for which there are resources, and removes
    /// them from `keys`.
    fn start_images(
        &self,
        keys: &mut Vec<ImageKey>,
        action: fn(ImageStart) -> Action,
        most: usize,
        pool: &mut ResourcePool,
        actions: &mut Vec<Action>,
    ) {
        let mut left = most;
        keys.retain(|key| {
            let Some(inputs) = self.inputs(key) else {
                return false;
            };
            if left == 0 || self.check_bootstrap(key, pool).is_some() {
                return true;
            }
            left -= 1;
            pool.allocate(self.allocation(JobId::Bootstrap(key.clone()), key));
            actions.push(action(ImageStart {
                key: key.clone(),
                volume: self.volume(key),
                inputs,
            }));
            false
        });
    }

    /// Returns the images that lack a checkpoint. They serve without it meanwhile.
    fn missing_checkpoints(&self) -> Vec<ImageKey> {
        if self.drained.is_some() {
            return Vec::new();
        }
        let is_due = |key: &ImageKey| {
            let made = self.image(key).and_then(|image| image.provenance.as_ref());
            made.is_some()
                && made == self.inputs(key).as_ref()
                && !self.jobs.images.contains_key(key)
                && self.halt(&key.machine).is_none()
        };
        self.start_modes
            .iter()
            .filter(|(key, mode)| mode.checkpoint_due && is_due(key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn readiness_of(&self, queued: &QueuedBuild) -> BuildReadiness {
        let ImageKey { machine, toolchain } = &queued.key;
        let state = self.machines.get(machine);
        let Some(state) = state.filter(|state| !state.view.deleting) else {
            let message = format!("machine {machine} was deleted");
            return BuildReadiness::Ended(Action::Abort(queued.id, message));
        };
        if let Some(readiness) = self.dependencies_of(queued) {
            return readiness;
        }
        if queued.not_before.is_some_and(|time| time > self.now) {
            return BuildReadiness::BackingOff;
        }
        let reason = if let Some(drained) = &self.drained {
            drained.message()
        } else if state.view.current.is_none() {
            format!("machine {machine} has no current revision")
        } else if let Some(fault) = self.toolchain_fault(toolchain) {
            fault
        } else if !self.toolchains.contains_key(toolchain) {
            format!("toolchain {toolchain} is not there")
        } else if let Some(halt) = self.halt(machine) {
            halt.clone()
        } else if self.image(&queued.key).is_none() {
            return BuildReadiness::NeedsImage;
        } else {
            return BuildReadiness::Ready(Candidate {
                id: queued.id,
                key: queued.key.clone(),
                submitter: queued.submitter.clone(),
                priority: queued.priority,
                since: queued.since,
                volume: state.volume,
                request: self.request(&queued.key),
            });
        };
        BuildReadiness::Waiting(format!("because {reason}"))
    }

    /// Returns the readiness of a build that waits for others or must be skipped; `None`
    /// if all of them succeeded.
    fn dependencies_of(&self, queued: &QueuedBuild) -> Option<BuildReadiness> {
        let state = |id: &BuildId| {
            let state = self.dependencies.get(id).copied();
            state.unwrap_or(DependencyState::Failed)
        };
        let is = |wanted| queued.after.iter().filter(move |id| state(id) == wanted);
        if let Some(failed) = is(DependencyState::Failed).next() {
            let message = format!("build {failed}, which it was to come after, did not end well");
            return Some(BuildReadiness::Ended(Action::Skip(queued.id, message)));
        }
        let pending: Vec<_> = is(DependencyState::Pending)
            .map(|id| JobId::Build(*id))
            .collect();
        (!pending.is_empty()).then(|| {
            let builds = listed(&pending);
            BuildReadiness::Waiting(format!("for {builds}, which it is to come after"))
        })
    }

    /// Returns the reason for which a build waits whose image is missing.
    fn image_reason(&self, key: &ImageKey, actions: &[Action], pool: &ResourcePool) -> String {
        let ImageKey { machine, toolchain } = key;
        let image = format!("for the image of {machine} with toolchain {toolchain}");
        let starts =
            |action: &Action| matches!(action, Action::StartBootstrap(start) if start.key == *key);
        if self.jobs.images.contains_key(key) || actions.iter().any(starts) {
            return format!("{image}, which is being bootstrapped");
        }
        if let Some(failure) = self.final_failure(key) {
            return format!(
                "{image}, which could not be bootstrapped ({}); that is tried again when the machine or the toolchain changes",
                failure.message
            );
        }
        match self.check_bootstrap(key, pool) {
            Some(reason) => format!("{image}, whose bootstrap waits for {reason}"),
            None => format!("{image}, which is to be bootstrapped first"),
        }
    }
}
