//! Files of builds that have ended, from the object store.

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use config::BuildId;
use farm_core::archive::{Archive, ArchivedFile, BuildFile};
use farm_core::transfers::Wanted;
use farm_objects::{Objects, Stored};
use farm_store::ArchiveState;
use tracing::warn;

use super::{Refusal, Service};

/// Answers with a file of a build from the object store. Returns `None` if the host is to be asked: the
/// store does not have it yet, or fails.
pub(super) async fn archived(
    service: &Service,
    build: BuildId,
    wanted: &Wanted,
) -> Result<Option<Response>, Refusal> {
    let coordinator = &service.coordinator;
    let (Some(objects), Some(file)) = (coordinator.objects(), BuildFile::of(wanted)) else {
        return Ok(None);
    };
    let state = coordinator.store().archive_of(build).await;
    match state.map_err(|_| Refusal::unavailable())? {
        ArchiveState::Stored(archive) => {
            let offset = match wanted {
                Wanted::Log { offset, .. } => *offset,
                _ => 0,
            };
            from_store(objects, build, &archive, &file, offset).await
        }
        ArchiveState::Lost => {
            let message =
                format!("the log and the artifacts of build {build} are nowhere any more");
            Err(Refusal(StatusCode::GONE, message))
        }
        ArchiveState::Host | ArchiveState::Waiting => Ok(None),
    }
}

async fn from_store(
    objects: &Objects,
    build: BuildId,
    archive: &Archive,
    file: &BuildFile,
    offset: u64,
) -> Result<Option<Response>, Refusal> {
    let Some((name, found)) = archive.find(file) else {
        let message = match file {
            BuildFile::Artifact(name) => format!("build {build} has no artifact {name}"),
            BuildFile::Log | BuildFile::List => format!("build {build} has no such file"),
        };
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    };
    let ArchivedFile { bytes, sha256, .. } = found.clone();
    let stored = Stored { bytes, sha256 };
    match objects.get(&name, &stored, offset).await {
        Ok(content) => {
            let length = bytes.saturating_sub(offset);
            let mut response = Body::from_stream(content).into_response();
            let headers = response.headers_mut();
            headers.insert(CONTENT_LENGTH, length.into());
            if let Ok(media_type) = HeaderValue::from_str(&found.media_type) {
                headers.insert(CONTENT_TYPE, media_type);
            }
            Ok(Some(response))
        }
        Err(error) => {
            // Its host may have it still.
            let error = &error as &dyn std::error::Error;
            warn!(%build, error, "cannot read a file of the object store; asking its host");
            Ok(None)
        }
    }
}
