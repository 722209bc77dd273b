//! The machines on which a further build could start now: what is offered to controllers.

use std::collections::{BTreeMap, BTreeSet};

use config::{BuildId, ImageKey, MachineName, ResourceName, Revision, ToolchainName};
use store::{ImageView, Located, Uuid, VolumeId};

use super::{Observed, key};
use crate::admission::{Allocation, ResourcePool};
use crate::{JobId, ResourceRequest};

/// A machine on which a further build could start now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The image that the build would run on.
    pub key: ImageKey,
    /// The volume of the machine.
    pub volume: VolumeId,
    /// The UUID of the image.
    pub image: Uuid,
    /// The identity of the revision that the image is made of, the same on all hosts that received
    /// it.
    pub identity: String,
    /// The resources that the guest would take.
    pub request: ResourceRequest,
}

/// The auxiliary machines that could start now beside a build on any machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuxiliaryOpenings {
    /// The machines.
    pub machines: Vec<Opening>,
    /// The memory that is left for all of them together, in MiB.
    pub memory: u64,
}

/// Resources for guests, of a whole host or of a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// The number of guests.
    pub guests: u64,
    /// The processors.
    pub cpus: u64,
    /// The memory, in MiB.
    pub memory: u64,
    /// The countable resources.
    pub counts: BTreeMap<ResourceName, u64>,
}

/// The state of a host, as a farm is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// The resources of the idle host.
    pub total: Amounts,
    /// The resources that are left once everything in the queue that can start has started.
    pub free: Amounts,
    /// The machines with a current revision.
    pub machines: BTreeMap<MachineName, OfferedMachine>,
    /// The reason for which no guest starts.
    pub halt: Option<String>,
}

/// A machine, as a farm is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedMachine {
    /// The current revision.
    pub revision: Revision,
    /// The images that are made of it.
    pub images: Vec<ImageKey>,
    /// The revision on trial.
    pub candidate: Option<OfferedCandidate>,
}

/// A revision on trial, as a farm is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCandidate {
    /// The revision.
    pub revision: Revision,
    /// The toolchains of which it has an image.
    pub toolchains: BTreeSet<ToolchainName>,
    /// The toolchains whose bootstrap has failed on it, and not on the current revision, with the reasons.
    pub failures: BTreeMap<ToolchainName, String>,
}

impl Observed {
    /// Returns the state of the host, as a farm is told.
    pub fn host_state(&self) -> HostState {
        let pool = self.pool_behind_queue(&BTreeSet::new());
        let capacity = pool.capacity();
        // A guest has one processor at least.
        let guests = capacity.guests.map_or(capacity.cpus, |it| it as u64);
        let total = Amounts {
            guests,
            cpus: capacity.cpus,
            memory: capacity.memory,
            counts: capacity.counts.clone(),
        };
        let running = pool.allocations().len() as u64;
        let loads = pool.loads().into_iter();
        let free = Amounts {
            guests: guests.saturating_sub(running),
            cpus: capacity.cpus.saturating_sub(pool.allocated_amounts().0),
            memory: pool.free_memory(),
            counts: loads
                .map(|(name, load)| (name, load.total.unwrap_or(0).saturating_sub(load.taken)))
                .collect(),
        };
        let drained = self.drained.as_ref().map(config::queue::Drained::message);
        let pressure = capacity.pressure.filter(|_| running > 0);
        let halt = drained
            .or_else(|| self.halt.clone())
            .or_else(|| pressure.map(|it| it.notice()));
        let machines = self.machines.iter();
        HostState {
            total,
            free,
            machines: machines
                .filter_map(|(name, state)| Some((name.clone(), self.offered(state)?)))
                .collect(),
            halt,
        }
    }

    /// Returns a machine with its images that builds may use now.
    fn offered(&self, state: &Located) -> Option<OfferedMachine> {
        let current = state.view.current.filter(|_| !state.view.deleting)?;
        let mut revisions = state.view.revisions.iter();
        let uuid = revisions
            .find(|it| it.revision == current)?
            .uuid
            .to_string();
        let is_halted = self.halted_volumes.contains_key(&state.volume);
        let of_current = |image: &&ImageView| {
            let provenance = image.provenance.as_ref();
            provenance.is_some_and(|it| it.revision_uuid == uuid) && !is_halted
        };
        let images = state.view.images.iter().filter(of_current);
        let keys = images
            .map(|image| key(&state.view, &image.toolchain))
            .filter(|it| !self.auxiliaries.contains(it) && self.image(it).is_some());
        Some(OfferedMachine {
            revision: current,
            images: keys.collect(),
            candidate: self.offered_candidate(state),
        })
    }

    /// Returns the revision on trial of a machine with its images that builds may use now.
    fn offered_candidate(&self, state: &Located) -> Option<OfferedCandidate> {
        let (candidate, _) = state.view.candidate()?;
        let is_halted = self.halted_volumes.contains_key(&state.volume);
        let keys = self.toolchains.keys().map(|it| key(&state.view, it));
        let keys: Vec<_> = keys.filter(|it| !self.auxiliaries.contains(it)).collect();
        let ready = keys
            .iter()
            .filter(|it| !is_halted && self.trial_image(it).is_some());
        let failures = keys.iter().filter_map(|it| {
            let failure = self.final_trial_failure(it)?;
            Some((it.toolchain.clone(), failure.message.clone()))
        });
        Some(OfferedCandidate {
            revision: candidate.revision,
            toolchains: ready.map(|it| it.toolchain.clone()).collect(),
            failures: failures.collect(),
        })
    }

    /// Returns the auxiliary machines that could start now beside a build on any of these openings,
    /// under the same conditions.
    pub fn auxiliary_openings(
        &self,
        toolchain: &ToolchainName,
        ended: &BTreeSet<BuildId>,
        builds: &[Opening],
    ) -> AuxiliaryOpenings {
        let mut pool = self.pool_behind_queue(ended);
        let Some(largest) = builds.iter().max_by_key(|it| it.request.memory) else {
            return AuxiliaryOpenings::default();
        };
        // The build itself is counted, so that an auxiliary guest is one more.
        pool.allocate(Allocation {
            job: JobId::Build(BuildId(0)),
            machine: largest.key.machine.clone(),
            volume: largest.volume,
            request: largest.request.clone(),
        });
        let machines = self.machines.values();
        let openings = machines.filter_map(|state| self.opening(state, toolchain, &pool));
        AuxiliaryOpenings {
            machines: openings
                .filter_map(Result::ok)
                .filter(|it| self.auxiliaries.contains(&it.key))
                .collect(),
            memory: pool.free_memory(),
        }
    }

    /// Returns the machines on which a further build with this toolchain could start now, once the
    /// builds of `ended` have ended and everything in the queue that can start has started.
    ///
    /// # Errors
    /// The reason for which there are none.
    pub fn openings(
        &self,
        toolchain: &ToolchainName,
        ended: &BTreeSet<BuildId>,
    ) -> Result<Vec<Opening>, String> {
        if let Some(drained) = &self.drained {
            return Err(drained.message());
        }
        if let Some(halt) = &self.halt {
            return Err(halt.clone());
        }
        let pool = self.pool_behind_queue(ended);
        let (mut openings, mut reasons) = (Vec::new(), Vec::new());
        let is_for_builds = |state: &&Located| {
            let key = key(&state.view, toolchain);
            !self.auxiliaries.contains(&key)
        };
        for state in self.machines.values().filter(is_for_builds) {
            match self.opening(state, toolchain, &pool) {
                Some(Ok(opening)) => openings.push(opening),
                Some(Err(reason)) => reasons.push(reason),
                None => {}
            }
        }
        if !openings.is_empty() {
            return Ok(openings);
        }
        Err(reasons.into_iter().next().unwrap_or_else(|| {
            self.toolchain_fault(toolchain)
                .unwrap_or_else(|| format!("no machine is bootstrapped with toolchain {toolchain}"))
        }))
    }

    /// Returns the resources that are left when these builds have ended and the queue has started.
    fn pool_behind_queue(&self, ended: &BTreeSet<BuildId>) -> ResourcePool {
        let jobs = ended.iter().map(|id| JobId::Build(*id)).collect();
        let mut pool = self.pool().without(&jobs);
        let mut candidates = self.candidates();
        candidates.retain(|it| !ended.contains(&it.id));
        self.place_asked(&candidates, &mut pool);
        pool
    }

    /// Returns the opening of a machine, or the reason for which it has none; `None` if it has no
    /// image.
    fn opening(
        &self,
        state: &Located,
        toolchain: &ToolchainName,
        pool: &ResourcePool,
    ) -> Option<Result<Opening, String>> {
        let key = key(&state.view, toolchain);
        let image = self.image(&key).filter(|_| !state.view.deleting)?;
        let identity = identity(state, image)?;
        state.view.current?;
        if let Some(halt) = self.halted_volumes.get(&state.volume) {
            return Some(Err(halt.clone()));
        }
        let request = self.request(&key);
        if let Some(reason) = pool.check(&key.machine, state.volume, &request) {
            return Some(Err(format!(
                "a further guest of {} waits for {reason}",
                key.machine
            )));
        }
        Some(Ok(Opening {
            image: image.uuid,
            volume: state.volume,
            identity,
            request,
            key,
        }))
    }
}

/// Returns the identity of the revision that an image is made of.
fn identity(state: &Located, image: &ImageView) -> Option<String> {
    let made_of = &image.provenance.as_ref()?.revision_uuid;
    let mut revisions = state.view.revisions.iter();
    let revision = revisions.find(|it| it.uuid.to_string() == *made_of);
    let received = revision.and_then(|it| it.received_uuid);
    Some(received.map_or_else(|| made_of.clone(), |uuid| uuid.to_string()))
}
