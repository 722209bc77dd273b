//! The requests of clients that read: builds, hosts, machines, the queue.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use config::BuildId;
use config::tokens::Scope;
use farm_core::view::{
    BuildPage, BuildQuery, BuildView, HostQuery, HostView, MachineView, QueueView,
};
use farm_store::StoreError;
use tracing::warn;

use super::auth::authorize;
use super::{Refusal, Service};
use crate::view;

/// The filters of a list, which are looked at after the token.
pub(super) type Filters<T> = Result<Query<T>, QueryRejection>;

/// Returns the filters, if they can be used.
fn checked<T>(query: Filters<T>) -> Result<T, Refusal> {
    let query = query.map(|Query(query)| query);
    query.map_err(|error| {
        let message = format!("the filters cannot be used: {}", error.body_text());
        Refusal(StatusCode::BAD_REQUEST, message)
    })
}

/// An answer, or its refusal.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn builds(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    query: Filters<BuildQuery>,
) -> Answer<BuildPage> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(view::builds(&service.coordinator, &checked(query)?).await)
}

pub(super) async fn build(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Answer<BuildView> {
    authorize(&service, &headers, Scope::Read).await?;
    let Json(found) = answer(view::build(&service.coordinator, build).await)?;
    found.map(Json).ok_or_else(|| no_build(build))
}

pub(super) async fn queue(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Answer<QueueView> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(view::queue(&service.coordinator).await)
}

pub(super) async fn hosts(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    query: Filters<HostQuery>,
) -> Answer<Vec<HostView>> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(view::hosts(&service.coordinator, &checked(query)?).await)
}

pub(super) async fn host(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Answer<HostView> {
    authorize(&service, &headers, Scope::Read).await?;
    let Json(hosts) = answer(view::hosts_named(&service.coordinator, &[&name]).await)?;
    let found = hosts.into_iter().next();
    found.map(Json).ok_or_else(|| no_host(&name))
}

pub(super) async fn machines(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Answer<Vec<MachineView>> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(view::all_machines(&service.coordinator).await)
}

/// Returns the refusal for a build that does not exist.
pub(super) fn no_build(build: BuildId) -> Refusal {
    let message = format!("build {build} does not exist in the farm");
    Refusal(StatusCode::NOT_FOUND, message)
}

/// Returns the refusal for a host that does not exist.
pub(super) fn no_host(name: &str) -> Refusal {
    let message = format!("host {name} does not exist in the farm");
    Refusal(StatusCode::NOT_FOUND, message)
}

/// Returns the answer for what was read.
pub(super) fn answer<T>(read: Result<T, StoreError>) -> Answer<T> {
    read.map(Json).map_err(|error| {
        let error = &error as &dyn std::error::Error;
        warn!(error, "cannot read from the farm's store");
        Refusal::unavailable()
    })
}
