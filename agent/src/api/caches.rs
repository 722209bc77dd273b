//! Caches between builds.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::response::Json;
use cache::CacheError;
use config::CacheName;
use config::cache::{
    Cache, CacheContent, Deleted, ENTRIES_MAX, EntryFilter, EntryQuery, PruneRequest,
};
use sys::blocking::blocking;
use tracing::info;

use super::auth::Caller;
use super::error::ApiError;
use state::AgentState;

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        Self::internal(&error)
    }
}

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<Cache>>, ApiError> {
    Ok(Json(describe(&agent).await?))
}

/// Returns all caches.
pub(super) async fn describe(agent: &AgentState) -> Result<Vec<Cache>, ApiError> {
    let caches = agent.caches.clone();
    let described = blocking(move || caches.iter().map(|cache| cache.describe()).collect());
    let described: Result<_, CacheError> = described.await;
    Ok(described?)
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<CacheName>, PathRejection>,
    query: Result<Query<EntryQuery>, QueryRejection>,
) -> Result<Json<CacheContent>, ApiError> {
    let (Path(name), Query(query)) = (name?, query?);
    if query
        .limit
        .is_some_and(|limit| !(1..=ENTRIES_MAX).contains(&limit))
    {
        return Err(ApiError::bad_request(format!(
            "`limit` is a number from 1 to {ENTRIES_MAX}"
        )));
    }
    let cache = find(&agent, &name)?;
    Ok(Json(blocking(move || cache.list(&query)).await?))
}

pub(super) async fn prune(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<CacheName>, PathRejection>,
    request: Result<Json<PruneRequest>, JsonRejection>,
) -> Result<Json<Deleted>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let cache = find(&agent, &name)?;
    let deleted = blocking(move || cache.prune(request)).await?;
    if !request.dry_run {
        let Deleted { entries, bytes } = deleted;
        info!(cache = %name, entries, bytes, by = %caller.submitter, "pruned a cache");
    }
    Ok(Json(deleted))
}

pub(super) async fn delete(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<CacheName>, PathRejection>,
    filter: Result<Query<EntryFilter>, QueryRejection>,
) -> Result<Json<Deleted>, ApiError> {
    let (Path(name), Query(filter)) = (name?, filter?);
    let (cache, dry_run) = (find(&agent, &name)?, filter.dry_run);
    let deleted = blocking(move || cache.delete(&filter)).await?;
    if !dry_run {
        let Deleted { entries, bytes } = deleted;
        info!(cache = %name, entries, bytes, by = %caller.submitter, "deleted entries of a cache");
    }
    Ok(Json(deleted))
}

fn find(agent: &AgentState, name: &CacheName) -> Result<Arc<cache::Cache>, ApiError> {
    let found = agent.caches.get(name);
    found.cloned().ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no cache {name}; `buildhost cache list` lists all caches, and the settings \
             declare them"
        ))
    })
}
