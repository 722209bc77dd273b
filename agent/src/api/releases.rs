//! Releases.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use config::ReleaseName;
use config::layers::Release;
use sys::blocking::blocking;
use tracing::info;

use super::auth::Caller;
use super::error::ApiError;
use state::AgentState;

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<Release>>, ApiError> {
    let catalog = agent.catalog.clone();
    Ok(Json(blocking(move || catalog.releases()).await?))
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ReleaseName>, PathRejection>,
) -> Result<Json<Release>, ApiError> {
    let Path(name) = name?;
    let catalog = agent.catalog.clone();
    Ok(Json(blocking(move || catalog.release(&name)).await?))
}

pub(super) async fn add(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ReleaseName>, PathRejection>,
    release: Result<Json<Release>, JsonRejection>,
) -> Result<(StatusCode, Json<Release>), ApiError> {
    let (Path(name), Json(mut release)) = (name?, release?);
    if release.name != name {
        let detail = format!("the release is named {} and not {name}", release.name);
        return Err(ApiError::bad_request(detail));
    }
    release.source = String::new();
    let (catalog, mirrors) = (agent.catalog.clone(), agent.mirrors.clone());
    let (is_new, release) = blocking(move || {
        mirrors.check(&release.bitbake.url)?;
        let is_new = catalog.add_release(&release)?;
        Ok::<_, yocto::PrepareError>((is_new, catalog.release(&release.name)?))
    })
    .await?;
    info!(release = %release.name, by = %caller.submitter, is_new, "added a release");
    Ok((status(is_new), Json(release)))
}

pub(super) async fn remove(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ReleaseName>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = name?;
    let (catalog, removed) = (agent.catalog.clone(), name.clone());
    blocking(move || catalog.remove_release(&removed)).await?;
    info!(release = %name, by = %caller.submitter, "removed a release");
    Ok(StatusCode::NO_CONTENT)
}

/// Returns the status for something that was added or replaced.
pub(super) fn status(is_new: bool) -> StatusCode {
    if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}
