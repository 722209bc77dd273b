//! The snapshots that guests of builds run in.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use config::builds::Build;
use config::layout::Entry;
use config::{GuestTag, NameError, Tag};
use store::{Snapshot, SnapshotSource, StoreError, Volume, Volumes};
use sys::blocking::blocking;
use tracing::warn;

use crate::runner::JobError;
use state::AgentState;

/// Takes a new snapshot of an image for a build, of a revision on trial if it runs on one; an older
/// one is deleted.
pub(super) async fn take(volume: &Volume, build: &Build) -> Result<Arc<Snapshot>, StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        let tag = build.id.tag();
        volume.delete_snapshot(&build.machine, &build.toolchain, &tag)?;
        let image = match build.running_trial() {
            Some(run) => SnapshotSource::TrialImage(run.revision, build.toolchain.clone()),
            None => SnapshotSource::Image(build.toolchain.clone()),
        };
        volume
            .snapshot(&build.machine, &image, &build.toolchain, &tag)
            .map(Arc::new)
    })
    .await
}

/// Takes the snapshot of a running build that becomes its fork point; an older one is deleted.
pub(super) async fn take_fork_point(
    volume: &Volume,
    build: &Build,
) -> Result<Arc<Snapshot>, JobError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        let tag = fork_tag(&build)?;
        volume.delete_snapshot(&build.machine, &build.toolchain, &tag)?;
        let running = SnapshotSource::Snapshot(build.id.tag());
        let point = volume.snapshot(&build.machine, &running, &build.toolchain, &tag)?;
        Ok(Arc::new(point))
    })
    .await
}

/// Takes the snapshot of a copy of a build; an older one is deleted.
pub(super) fn take_copy(
    volume: &Volume,
    source: &Build,
    copy: &Build,
) -> Result<Arc<Snapshot>, JobError> {
    let tag = copy.id.tag();
    volume.delete_snapshot(&copy.machine, &copy.toolchain, &tag)?;
    let point = SnapshotSource::Snapshot(fork_tag(source)?);
    let snapshot = volume.snapshot(&copy.machine, &point, &copy.toolchain, &tag)?;
    Ok(Arc::new(snapshot))
}

/// Deletes the fork point of a build, if there is one.
pub(super) async fn delete_fork_point(volume: &Volume, build: &Build) -> Result<(), JobError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        let tag = fork_tag(&build)?;
        volume.delete_snapshot(&build.machine, &build.toolchain, &tag)?;
        Ok(())
    })
    .await
}

fn fork_tag(build: &Build) -> Result<Tag, NameError> {
    GuestTag::Fork(build.id).to_string().parse()
}

/// Deletes the snapshot of a build, if there is one.
pub(super) async fn delete(volume: &Volume, build: &Build) -> Result<(), StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        volume
            .delete_snapshot(&build.machine, &build.toolchain, &build.id.tag())
            .map(drop)
    })
    .await
}

/// Returns the directory of the snapshot of a build.
pub(super) fn directory(volume: &Volume, build: &Build) -> PathBuf {
    let entry = Entry::Snapshot(build.toolchain.clone(), build.id.tag());
    volume.entry(&build.machine, &entry)
}

/// Returns the volume that has the snapshot of a build, if there is one. An error is
/// logged and counts as none.
pub(super) async fn volume_or_log(agent: &AgentState, build: &Build) -> Option<Volume> {
    volume(agent, build).await.unwrap_or_else(|error| {
        let error = &error as &dyn Error;
        warn!(build = %build.id, error, "cannot find the snapshot of a build");
        None
    })
}

/// Returns the volume that has the snapshot of a build, if there is one: the recorded volume,
/// or else, for a build without one, the first that has it.
///
/// # Errors
/// When the recorded volume cannot be read. Without one, when no volume has the snapshot and
/// one could not be read.
pub(super) async fn volume(
    agent: &AgentState,
    build: &Build,
) -> Result<Option<Volume>, StoreError> {
    let (volumes, build) = (agent.volumes.clone(), build.clone());
    blocking(move || find(&volumes, &build)).await
}

fn find(volumes: &Volumes, build: &Build) -> Result<Option<Volume>, StoreError> {
    let (machine, toolchain, tag) = (&build.machine, &build.toolchain, build.id.tag());
    if let Some(volume) = recorded_volume(volumes, build) {
        let exists = volume.has_snapshot(machine, toolchain, &tag)?;
        return Ok(exists.then(|| volume.clone()));
    }
    let id = volumes.of_snapshot(machine, toolchain, &tag)?;
    Ok(id.and_then(|id| volumes.get(id).cloned()))
}

/// Returns the volume that the record of a build names; `None` if the record names none, or
/// one that is no longer in the settings.
pub(super) fn recorded_volume<'v>(volumes: &'v Volumes, build: &Build) -> Option<&'v Volume> {
    volumes.at(build.volume.as_deref()?)
}
