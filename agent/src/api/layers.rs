//! Layers and their sources.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use config::layers::{
    Layer, LayerContent, LayerQuery, LayerSource, LoadedFixture, NewFixture, Update, UpdateRequest,
};
use config::{LayerName, ReleaseName};
use jiff::Timestamp;
use serde::Deserialize;
use sys::blocking::blocking;
use tracing::info;
use yocto::fixtures::Fixture;

use super::auth::Caller;
use super::error::ApiError;
use super::releases::status;
use crate::triggers::layers;
use state::AgentState;

/// The release of a layer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfRelease {
    release: Option<ReleaseName>,
}

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    query: Result<Query<LayerQuery>, QueryRejection>,
) -> Result<Json<Vec<Layer>>, ApiError> {
    let Query(query) = query?;
    let catalog = agent.catalog.clone();
    Ok(Json(blocking(move || catalog.layers(&query)).await?))
}

/// Returns a layer as it belongs to a release, or to each release.
pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<LayerName>, PathRejection>,
    query: Result<Query<OfRelease>, QueryRejection>,
) -> Result<Json<Vec<LayerContent>>, ApiError> {
    let (Path(name), Query(query)) = (name?, query?);
    let catalog = agent.catalog.clone();
    let found = blocking(move || catalog.layer_contents(&name, query.release.as_ref()));
    Ok(Json(found.await?))
}

pub(super) async fn add(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<LayerName>, PathRejection>,
    layer: Result<Json<Layer>, JsonRejection>,
) -> Result<(StatusCode, Json<Layer>), ApiError> {
    let (Path(name), Json(mut layer)) = (name?, layer?);
    if layer.name != name {
        let detail = format!("the layer is named {} and not {name}", layer.name);
        return Err(ApiError::bad_request(detail));
    }
    (layer.source, layer.gone) = (String::new(), false);
    let (catalog, mirrors, new) = (agent.catalog.clone(), agent.mirrors.clone(), layer.clone());
    let added = blocking(move || {
        mirrors.check(&new.location.url)?;
        Ok::<_, yocto::PrepareError>(catalog.add_layer(&new)?)
    });
    let is_new = added.await?;
    info!(layer = %name, by = %caller.submitter, is_new, "added a layer");
    Ok((status(is_new), Json(layer)))
}

pub(super) async fn remove(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<LayerName>, PathRejection>,
    query: Result<Query<OfRelease>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let (Path(name), Query(query)) = (name?, query?);
    let (catalog, removed) = (agent.catalog.clone(), name.clone());
    blocking(move || catalog.remove_layer(&removed, query.release.as_ref())).await?;
    info!(layer = %name, by = %caller.submitter, "removed a layer");
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn sources(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<LayerSource>>, ApiError> {
    let catalog = agent.catalog.clone();
    Ok(Json(blocking(move || catalog.sources()).await?))
}

pub(super) async fn load_fixture(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    new: Result<Json<NewFixture>, JsonRejection>,
) -> Result<Json<LoadedFixture>, ApiError> {
    let Json(new) = new?;
    let fixture = Fixture {
        name: new.name.to_string(),
        text: new.text,
    };
    let catalog = agent.catalog.clone();
    let load = move || catalog.load_fixtures(&[fixture], false, Timestamp::now());
    let loaded = blocking(load).await?;
    let objects = loaded.objects.get(new.name.as_str()).copied();
    info!(file = %new.name, by = %caller.submitter, objects, "loaded a fixture");
    Ok(Json(LoadedFixture {
        objects: objects.unwrap_or_default(),
        notes: loaded.notes,
    }))
}

/// Updates the layers from layer indexes. One that fails leaves the others alone, and the answer
/// has its fault.
pub(super) async fn update(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<UpdateRequest>, JsonRejection>,
) -> Result<Json<Vec<Update>>, ApiError> {
    let Json(request) = request?;
    info!(by = %caller.submitter, "updates the layers from layer indexes");
    let updates = layers::update(&agent, request.url).await?;
    Ok(Json(updates))
}
