//! The jobs to start, and the reason for which every other queued build waits.

use std::collections::{BTreeMap, BTreeSet};

use config::builds::{Build, StartKind, Submitter};
use config::{BuildId, ImageKey, MachineName};
use jiff::Timestamp;
use store::VolumeId;

use super::{Action, BuildStart, Decision, DependencyState, Observed, QueuedBuild};
use crate::admission::{
    Allocation, Candidate, ResourcePool, RunningUsage, Shares, Unschedulable, UsageInterval, listed,
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

impl QueuedBuild {
    /// Returns the images of its auxiliary machines.
    pub(super) fn auxiliary_keys(&self) -> impl Iterator<Item = ImageKey> {
        self.auxiliaries.iter().map(|machine| ImageKey {
            machine: machine.clone(),
            toolchain: self.key.toolchain.clone(),
        })
    }
}

/// Returns the reason for which a ready build waits.
fn wait_reason(queued: &QueuedBuild, unschedulable: &Unschedulable) -> String {
    if queued.auxiliaries.is_empty() {
        return format!("for {unschedulable}");
    }
    let machines = queued.auxiliaries.iter().map(MachineName::as_str);
    let machines = machines.collect::<Vec<_>>().join(", ");
    format!("for {unschedulable}; it starts together with its auxiliary machines {machines}")
}

impl Observed {
    /// Returns the jobs to start while there are resources, the bootstraps that yield to
    /// them, the new wait reasons of the other builds, the ready builds in scheduling
    /// order, and the reasons for which bootstraps wait.
    pub(super) fn start_jobs(&self) -> Decision {
        let mut pool = self.pool();
        let mut sessions = self.admit_debug_sessions(&mut pool);
        sessions.extend(self.admit_forks(&mut pool));
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
        let (yields, mut placed) = self.place_asked(&candidates, &mut pool);
        let mut actions: Vec<_> = yields.into_iter().map(Action::YieldBootstrap).collect();
        actions.extend(sessions);
        actions.append(&mut placed.actions);
        let bootstrap_waits = self.start_unasked(&placed, &mut pool, &mut actions);
        self.start_checkpoints(&mut pool, &mut actions);
        for (queued, readiness) in readiness {
            let reason = match readiness {
                BuildReadiness::Ready(candidate) => match placed.verdicts.get(&candidate.id) {
                    Some(Err(unschedulable)) => wait_reason(queued, unschedulable),
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
        Decision {
            actions,
            order: placed.order,
            bootstrap_waits,
        }
    }

    pub(super) fn start_build(&self, candidate: &Candidate) -> Action {
        Action::StartBuild(self.start(candidate))
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
            request: candidate.total(),
            trial: None,
        }
    }

    /// Returns the resources of the host with the allocations of the jobs that run.
    pub fn pool(&self) -> ResourcePool {
        // A suspended guest keeps its memory.
        let guests = self.jobs.guests();
        let guests = guests.map(|(job, key)| self.allocation(job, key));
        let auxiliaries = self.jobs.auxiliary_guests();
        let auxiliaries = auxiliaries.map(|(job, key)| self.auxiliary_allocation(job, key));
        ResourcePool::new(self.capacity.clone(), guests.chain(auxiliaries).collect())
    }

    /// Returns the builds that run, as fair-share accounting counts them.
    pub fn usage(&self) -> BTreeMap<BuildId, RunningUsage> {
        let usage = |(id, key): (&BuildId, &ImageKey)| {
            let running = self.running.get(id)?;
            let usage = RunningUsage {
                submitter: running.submitter.clone(),
                since: running.since,
                request: self.total_of(*id, key),
            };
            Some((*id, usage))
        };
        self.jobs.builds.iter().filter_map(usage).collect()
    }

    /// Rebuilds the shares of submitters from the records of earlier builds.
    pub fn shares_of(&self, builds: &[Build]) -> Shares {
        let intervals: Vec<_> = builds
            .iter()
            .flat_map(|build| {
                let request = self.request(&ImageKey::of(build));
                UsageInterval::all_of(build, &request.with(&build.resources))
            })
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

    /// Returns the times of submission and the submitters of all ready builds, if one of them
    /// would fit but waits: its resources are kept for another one.
    pub(super) fn kept_waiting(&self) -> Vec<(Timestamp, Submitter)> {
        let ready = self.candidates();
        let pool = self.pool();
        let fits = |it: &Candidate| pool.check_together(&it.allocations()).is_none();
        if !ready.iter().any(fits) {
            return Vec::new();
        }
        ready
            .into_iter()
            .map(|it| (it.since, it.submitter))
            .collect()
    }

    /// Returns the builds in the queue that only resources keep from starting.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let ready = |queued| match self.readiness_of(queued) {
            BuildReadiness::Ready(candidate) => Some(candidate),
            _ => None,
        };
        self.queue.iter().filter_map(ready).collect()
    }

    /// Returns the time at which a backoff ends, if any build backs off.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.queue
            .iter()
            .filter(|queued| queued.is_backing_off(self.now))
            .filter_map(|queued| queued.backoff.as_ref())
            .map(|backoff| backoff.end)
            .min()
    }

    /// Returns the request of a guest whose build asks for no resources.
    pub(super) fn request(&self, key: &ImageKey) -> ResourceRequest {
        self.requests.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn request_of(&self, job: &JobId, key: &ImageKey) -> ResourceRequest {
        let request = self.request(key);
        match self.jobs.resources_of(job) {
            Some(resources) => request.with(resources),
            None => request,
        }
    }

    pub(super) fn volume(&self, key: &ImageKey) -> VolumeId {
        let state = self.machines.get(&key.machine);
        state.map_or(VolumeId(0), |state| state.volume)
    }

    pub(super) fn allocation(&self, job: JobId, key: &ImageKey) -> Allocation {
        let request = self.request_of(&job, key);
        Allocation {
            job,
            machine: key.machine.clone(),
            volume: self.volume(key),
            request,
        }
    }

    /// Returns the allocation of an auxiliary guest of a build.
    pub(super) fn auxiliary_allocation(&self, job: JobId, key: &ImageKey) -> Allocation {
        Allocation {
            job,
            machine: key.machine.clone(),
            volume: self.volume(key),
            request: self.request(key),
        }
    }

    /// Returns the resources that all guests of a running build take together.
    pub(super) fn total_of(&self, id: BuildId, key: &ImageKey) -> ResourceRequest {
        let own = self.request_of(&JobId::Build(id), key);
        let auxiliaries = self.jobs.auxiliaries.get(&id).into_iter().flatten();
        auxiliaries.fold(own, |sum, key| sum.plus(&self.request(key)))
    }

    /// Returns the allocations that the guests of a queued build would have.
    pub(super) fn allocations_of(&self, queued: &QueuedBuild) -> Vec<Allocation> {
        let request = self.request(&queued.key).with(&queued.resources);
        let own = Allocation {
            request,
            ..self.auxiliary_allocation(JobId::Build(queued.id), &queued.key)
        };
        let auxiliaries = self.auxiliaries_of(queued).into_iter();
        std::iter::once(own).chain(auxiliaries).collect()
    }

    fn auxiliaries_of(&self, queued: &QueuedBuild) -> Vec<Allocation> {
        let keys = queued.auxiliary_keys();
        keys.map(|key| self.auxiliary_allocation(JobId::Build(queued.id), &key))
            .collect()
    }

    /// Returns the reason for which an auxiliary machine of a queued build cannot run, if there is
    /// one.
    fn auxiliary_fault(&self, queued: &QueuedBuild) -> Option<String> {
        queued.auxiliary_keys().find_map(|key| {
            let ImageKey { machine, toolchain } = &key;
            match self.machines.get(machine) {
                Some(state) if !state.view.deleting => {}
                _ => return Some(format!("auxiliary machine {machine} was deleted")),
            }
            if let Some(halt) = self.halt(machine) {
                return Some(halt.clone());
            }
            self.image(&key).is_none().then(|| {
                format!("auxiliary machine {machine} has no image with toolchain {toolchain} yet")
            })
        })
    }

    fn readiness_of(&self, queued: &QueuedBuild) -> BuildReadiness {
        let ImageKey { machine, toolchain } = &queued.key;
        let state = self.machines.get(machine);
        let Some(state) = state.filter(|state| !state.view.deleting) else {
            let message = format!("machine {machine} was deleted");
            return BuildReadiness::Ended(Action::Abort(queued.id, message));
        };
        if let Some(fault) = self.trial_fault(queued) {
            return BuildReadiness::Ended(Action::GiveBack(queued.id, fault));
        }
        if let Some(readiness) = self.dependencies_of(queued) {
            return readiness;
        }
        if queued.is_backing_off(self.now) {
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
        } else if queued.granted_trial.is_none() && self.image(&queued.key).is_none() {
            return BuildReadiness::NeedsImage;
        } else if let Some(fault) = self.auxiliary_fault(queued) {
            fault
        } else {
            return BuildReadiness::Ready(Candidate {
                id: queued.id,
                key: queued.key.clone(),
                submitter: queued.submitter.clone(),
                priority: queued.priority,
                since: queued.since,
                volume: state.volume,
                request: self.request(&queued.key).with(&queued.resources),
                auxiliaries: self.auxiliaries_of(queued),
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
