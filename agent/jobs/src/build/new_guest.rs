//! The new guest of an attempt: a ready one, one that is restored from the image's checkpoint, or
//! one that boots.

use std::sync::Arc;
use std::time::Instant;

use config::builds::{Build, StartKind};
use config::limits::Limits;
use config::task::Preload;
use guard::Deadline;
use guest::{BootMode, SealedMemory};
use planner::BuildStart;
use session::{GuestSecrets, ReadyGuest, SessionSpec};
use state::{AgentState, ImageFacts, RestoreMemory};
use store::{RefusalKind, Snapshot, Uuid, Volume};
use sys::blocking::blocking;
use tftp::server::DeferredFile;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::{auxiliaries, boot, cache, driven, files, hashserv, inputs, secrets};
use crate::runner::{GuestSource, JobError};
use crate::{limits, ready, snapshot};

/// A new guest, or everything that it is started with.
pub(super) struct NewGuest {
    pub(super) source: GuestSource,
    pub(super) limits: Limits,
    /// The load of the memory that later guests share. It reads the guest's snapshot, which must
    /// not be deleted before.
    pub(super) load: Option<JoinHandle<()>>,
}

impl NewGuest {
    /// Prepares a guest, and records how it starts.
    pub(super) async fn prepare(
        agent: &Arc<AgentState>,
        volume: &Volume,
        build: &mut Build,
        start: &BuildStart,
    ) -> Result<Self, JobError> {
        let secrets = secrets::of_build(agent, build).await?;
        let taken = match start.image {
            Some(image) if may_be_ready(agent, build, start) => {
                ready::take(agent, build, image).await
            }
            _ => None,
        };
        let Some((guest, snapshot)) = taken else {
            let snapshot = take_snapshot(volume, build).await?;
            return Self::prepare_in(agent, volume, build, start, (snapshot, None), secrets).await;
        };
        let guest = UnusedGuest(Some(guest));
        let taken = (Arc::new(snapshot), Some(guest));
        Self::prepare_in(agent, volume, build, start, taken, secrets).await
    }

    async fn prepare_in(
        agent: &Arc<AgentState>,
        volume: &Volume,
        build: &mut Build,
        start: &BuildStart,
        (snapshot, guest): (Arc<Snapshot>, Option<UnusedGuest>),
        secrets: GuestSecrets,
    ) -> Result<Self, JobError> {
        let facts = facts(agent, &snapshot).await;
        // The image may have been replaced since the plan.
        let mode = match snapshot.source_uuid() {
            Some(image) if Some(image) == start.image => start.start,
            // A restore would test the checkpoint, not the revision.
            _ if build.running_trial().is_some() => StartKind::Cold,
            _ => {
                let guests = &agent.settings().guests;
                agent.restores.start_mode(guests, &start.key, &facts).start
            }
        };
        inputs::record(agent, volume, build, &snapshot).await?;
        let own = facts.machine.as_ref().map_err(Clone::clone);
        let own = own.map_err(JobError::Manifest)?;
        let machine = build.resources.applied_to(own);
        build.guest = inputs::guest_kind(agent, &machine);
        let boot = boot::decide(boot::Facts {
            mode,
            is_rejected: agent.restores.is_rejected(&start.key),
            attempts: build.attempts,
            is_resized: machine != *own,
        });
        build.restored = boot == Ok(StartKind::Restored);
        let limits = limits::of_attempt(&agent.settings(), build, &machine);
        let quiet_max = limits.idle;
        let limits = driven::limits(build, limits);
        inputs::record_policy(agent, build, &machine, &limits, boot.err());
        let (shared_memory, load) = if build.restored {
            memory(agent, &snapshot)
        } else {
            (None, None)
        };
        let mut spec = Box::new(SessionSpec {
            tag: build.id.to_string(),
            snapshot,
            machine,
            files: files::namespace(agent, build).await?,
            durable: false,
            boot: boot_mode(build),
            shared_memory,
            capture: files::record(agent, &agent.paths.build(build.id)),
            secrets,
            cache: cache::of_new_guest(agent, build).await,
            preload: Preload::default(),
            hashserv: hashserv::of_build(agent, build),
            commands: driven::of_build(agent, build, quiet_max),
            deadline: deadline(agent, build)?,
            copy: None,
        });
        let group = if build.auxiliaries().next().is_some() {
            let task = DeferredFile::default();
            spec.files.offer(config::task::TASK, task.clone());
            Some(auxiliaries::prepare(agent, build, task).await?)
        } else {
            None
        };
        // Before the start: the agent that adopts the guest must know its kind.
        agent.records.save(build).await?;
        let ready = guest.and_then(|mut guest| guest.0.take());
        Ok(Self {
            source: match (ready, group) {
                (_, Some(group)) => GuestSource::StartTogether(spec, group),
                (Some(guest), None) => GuestSource::Ready(Box::new(guest), spec),
                (None, None) => GuestSource::Start(spec),
            },
            limits,
            load,
        })
    }
}

/// Takes the snapshot for an attempt. If its trial has ended since the plan, it runs on the current
/// revision, unless it was granted for the other one: then its lease is given back as unused.
async fn take_snapshot(volume: &Volume, build: &mut Build) -> Result<Arc<Snapshot>, JobError> {
    match snapshot::take(volume, build).await {
        Err(error)
            if build.running_trial().is_some() && error.kind() == Some(RefusalKind::NotFound) =>
        {
            build.trial = None;
            if build
                .controller
                .as_ref()
                .is_some_and(|it| it.trial.is_some())
            {
                // No guest has started, so that nothing ran under the lease.
                build.started = None;
                return Err(error.into());
            }
            Ok(snapshot::take(volume, build).await?)
        }
        taken => Ok(taken?),
    }
}

fn boot_mode(build: &Build) -> BootMode {
    if build.restored {
        BootMode::Restore
    } else {
        BootMode::Cold
    }
}

/// Returns the time at which the guard of a build ends its guest; `None` if it needs no guard.
fn deadline(agent: &AgentState, build: &Build) -> Result<Option<Deadline>, JobError> {
    if !build.is_guarded() {
        return Ok(None);
    }
    let deadline = agent.lease_deadlines.get(build.id);
    let deadline = deadline.filter(|it| *it > guard::now());
    deadline.map(Some).ok_or(JobError::LeaseOver)
}

/// A ready guest that is ended unless it is used.
struct UnusedGuest(Option<ReadyGuest>);

impl Drop for UnusedGuest {
    fn drop(&mut self) {
        if let Some(guest) = self.0.take() {
            tokio::task::spawn_blocking(move || guest.discard());
        }
    }
}

/// Returns true if a ready guest serves a build: one that is restored, with the resources of its
/// machine.
fn may_be_ready(agent: &AgentState, build: &Build, start: &BuildStart) -> bool {
    let boot = boot::decide(boot::Facts {
        mode: start.start,
        is_rejected: agent.restores.is_rejected(&start.key),
        attempts: build.attempts,
        is_resized: build.resources.cpus.is_some() || build.resources.memory_mib.is_some(),
    });
    // A ready guest has a network of its own, and no guard.
    boot == Ok(StartKind::Restored) && build.auxiliaries().next().is_none() && !build.is_guarded()
}

/// Returns the facts of the image that a snapshot was taken of.
async fn facts(agent: &Arc<AgentState>, snapshot: &Arc<Snapshot>) -> Arc<ImageFacts> {
    let (agent, snapshot) = (Arc::clone(agent), Arc::clone(snapshot));
    blocking(move || match snapshot.source_uuid() {
        Some(image) => agent.image_facts.get(image, snapshot.path()),
        None => Arc::new(ImageFacts::read(snapshot.path())),
    })
    .await
}

/// Returns the memory that a restored guest shares with others, and the load of that memory.
fn memory(
    agent: &Arc<AgentState>,
    snapshot: &Arc<Snapshot>,
) -> (Option<SealedMemory>, Option<JoinHandle<()>>) {
    let Some(image) = snapshot.source_uuid() else {
        return (None, None);
    };
    match agent.hot_images.restore(image, Instant::now()) {
        RestoreMemory::Own => (None, None),
        RestoreMemory::OwnAndLoad => {
            let load = load(Arc::clone(agent), Arc::clone(snapshot), image);
            (None, Some(tokio::spawn(load)))
        }
        RestoreMemory::Shared(memory) => (Some(memory), None),
    }
}

/// Loads the memory that the later guests of an image share.
async fn load(agent: Arc<AgentState>, snapshot: Arc<Snapshot>, image: Uuid) {
    let began = Instant::now();
    let loaded = blocking(move || guest::checkpoint::seal_memory(snapshot.path())).await;
    let memory = match loaded {
        Ok(memory) => {
            let milliseconds = began.elapsed().as_millis();
            info!(bytes = memory.bytes(), %milliseconds, "loaded the memory of a hot image");
            Some(memory)
        }
        Err(error) => {
            warn!(%error, "cannot load the memory of a hot image: its guests share none");
            None
        }
    };
    agent.hot_images.loaded(image, memory);
}
