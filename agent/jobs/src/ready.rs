//! Ready guests, which builds take instead of starting guests of their own.

use std::error::Error;
use std::sync::Arc;

use config::builds::Build;
use config::{GuestTag, Tag};
use planner::plan::ReadyStart;
use session::{ReadyGuest, ReadySpec};
use state::{AgentState, PooledGuest};
use store::{Snapshot, SnapshotSource, StoreError, Uuid, Volume};
use sys::blocking::blocking;
use tracing::{info, warn};

use crate::JobError;

/// Makes a ready guest.
pub fn prepare(agent: &Arc<AgentState>, start: ReadyStart) {
    let Some(volume) = agent.volumes.get(start.volume).cloned() else {
        return;
    };
    let (tag, image) = (agent.next_ready(), start.image);
    agent.ready.reserve(tag, image);
    let task_agent = Arc::clone(agent);
    agent.tasks.spawn(async move {
        let shared = Arc::clone(&task_agent);
        let made = blocking(move || make(&shared, volume, tag, &start)).await;
        if let Err(error) = made {
            let error = &error as &dyn Error;
            warn!(error, "cannot make a ready guest: builds start their own");
            task_agent.ready.remove(tag);
            // Not tried again before further builds make it hot.
            task_agent.hot_images.forget(image);
        }
    });
}

fn make(
    agent: &AgentState,
    volume: Volume,
    tag: GuestTag,
    start: &ReadyStart,
) -> Result<(), JobError> {
    let (machine, toolchain) = (&start.key.machine, &start.key.toolchain);
    let name: Tag = tag.to_string().parse()?;
    let image = SnapshotSource::Image(toolchain.clone());
    let snapshot = volume.snapshot(machine, &image, toolchain, &name)?;
    match start_in(agent, &snapshot, tag, start.image) {
        Ok(guest) => {
            let made = PooledGuest {
                guest,
                snapshot,
                volume,
            };
            match agent.ready.put(tag, made) {
                Ok(()) => info!(guest = %tag, "a guest is ready"),
                Err(unwanted) => end(*unwanted),
            }
            Ok(())
        }
        Err(error) => {
            drop(snapshot);
            // The next round deletes what is left.
            let _ = volume.delete_snapshot(machine, toolchain, &name);
            Err(error)
        }
    }
}

fn start_in(
    agent: &AgentState,
    snapshot: &Snapshot,
    tag: GuestTag,
    image: Uuid,
) -> Result<ReadyGuest, JobError> {
    if snapshot.source_uuid() != Some(image) {
        return Err(JobError::Changed);
    }
    let facts = agent.image_facts.get(image, snapshot.path());
    let spec = ReadySpec {
        tag,
        snapshot,
        machine: facts.machine.clone().map_err(JobError::Manifest)?,
        shared_memory: agent.hot_images.memory(image),
    };
    Ok(ReadyGuest::start(&agent.guests, spec)?)
}

/// Takes a ready guest of an image for a build. Its snapshot gets the name of the build's.
pub(crate) async fn take(
    agent: &Arc<AgentState>,
    build: &Build,
    image: Uuid,
) -> Option<(ReadyGuest, Snapshot)> {
    let pooled = agent.ready.take(image)?;
    let tag = build.id.tag();
    blocking(move || {
        if !pooled.guest.is_running() {
            end(pooled);
            return None;
        }
        let PooledGuest {
            guest,
            snapshot,
            volume,
        } = pooled;
        let (machine, toolchain) = (snapshot.machine().clone(), snapshot.toolchain().clone());
        let old = snapshot.tag().clone();
        let renamed = volume
            .delete_snapshot(&machine, &toolchain, &tag)
            .and_then(|_| volume.rename_snapshot(snapshot, &tag));
        match renamed {
            Ok(snapshot) => {
                info!("a build takes a ready guest");
                Some((guest, snapshot))
            }
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(error, "cannot take a ready guest: the build starts its own");
                guest.discard();
                let _ = volume.delete_snapshot(&machine, &toolchain, &old);
                None
            }
        }
    })
    .await
}

/// Ends a ready guest that no build has taken.
pub async fn discard(agent: &Arc<AgentState>, tag: GuestTag) {
    if let Some(pooled) = agent.ready.remove(tag) {
        info!(guest = %tag, "ending a ready guest");
        blocking(move || end(pooled)).await;
    }
}

/// Ends all ready guests when the agent stops.
pub async fn discard_all(agent: &Arc<AgentState>) {
    let all = agent.ready.remove_all();
    blocking(move || all.into_iter().for_each(end)).await;
}

/// Ends a ready guest and deletes its snapshot. Blocks.
fn end(pooled: PooledGuest) {
    let PooledGuest {
        guest,
        snapshot,
        volume,
    } = pooled;
    guest.discard();
    if let Err(error) = delete(&volume, snapshot) {
        let error = &error as &dyn Error;
        warn!(error, "cannot delete the snapshot of a ready guest");
    }
}

fn delete(volume: &Volume, snapshot: Snapshot) -> Result<(), StoreError> {
    let (machine, toolchain) = (snapshot.machine().clone(), snapshot.toolchain().clone());
    let tag = snapshot.tag().clone();
    drop(snapshot);
    volume.delete_snapshot(&machine, &toolchain, &tag).map(drop)
}
