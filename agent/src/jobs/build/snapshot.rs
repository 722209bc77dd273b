//! The throw-away snapshot of an image that a build's guest runs in.

use std::sync::Arc;

use config::builds::Build;
use store::{Origin, Snapshot, StoreError, Volume};

use crate::blocking;

/// Takes it anew.
pub(super) async fn take(volume: &Volume, build: &Build) -> Result<Arc<Snapshot>, StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        let tag = build.id.tag();
        volume.drop_snapshot(&build.machine, &build.toolchain, &tag)?;
        let image = Origin::Image(build.toolchain.clone());
        volume
            .snapshot(&build.machine, &image, &build.toolchain, &tag)
            .map(Arc::new)
    })
    .await
}

/// Deletes it; it is no fault when there is none.
pub(crate) async fn drop(volume: &Volume, build: &Build) -> Result<(), StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || {
        volume
            .drop_snapshot(&build.machine, &build.toolchain, &build.id.tag())
            .map(|_| ())
    })
    .await
}
