//! The snapshots that guests of builds run in.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use config::builds::Build;
use config::layout::Entry;
use store::{Snapshot, SnapshotSource, StoreError, Volume};
use tracing::warn;

use crate::blocking;
use crate::state::AgentState;

/// Takes a new snapshot of an image for a build; an older one is deleted.
pub(super) async fn take(volume: &Volume, build: &Build) -> Result<Arc<Snapshot>, StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        let tag = build.id.tag();
        volume.delete_snapshot(&build.machine, &build.toolchain, &tag)?;
        let image = SnapshotSource::Image(build.toolchain.clone());
        volume
            .snapshot(&build.machine, &image, &build.toolchain, &tag)
            .map(Arc::new)
    })
    .await
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

/// Returns the volume that has the snapshot of a build, if there is one.
///
/// # Errors
/// When no volume has it and one could not be read.
pub(super) async fn volume(
    agent: &AgentState,
    build: &Build,
) -> Result<Option<Volume>, StoreError> {
    let (volumes, build) = (agent.volumes.clone(), build.clone());
    blocking(move || {
        let id = volumes.of_snapshot(&build.machine, &build.toolchain, &build.id.tag())?;
        Ok(id.and_then(|id| volumes.get(id).cloned()))
    })
    .await
}
