//! The requests of clients about the maintenance windows of hosts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use config::tokens::Scope;
use farm_core::messages::{Reply, Request};
use farm_core::windows::{WindowId, WindowRequest, window};
use jiff::Timestamp;
use serde::Serialize;
use tracing::info;

use super::auth::authorize;
use super::clients::host_of;
use super::{Refusal, Service};
use crate::view::zone;

/// The number of a window.
#[derive(Debug, Serialize)]
pub(super) struct Added {
    pub(super) window: WindowId,
}

pub(super) async fn add(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(name): Path<String>,
    Json(request): Json<WindowRequest>,
) -> Result<Json<Added>, Refusal> {
    let client = authorize(&service, &headers, Scope::Admin).await?;
    let host = host_of(&service, &name).await?;
    let now = service.coordinator.store().now_ms().await;
    let now = now.map_err(|_| Refusal::unavailable())?;
    let now = Timestamp::from_millisecond(now.cast_signed()).unwrap_or_default();
    let new = window(request, now, zone)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
    info!(by = client.name, host = name, window = ?new, "a client adds a window");
    match service
        .coordinator
        .handle(Request::AddWindow(host, new))
        .await
    {
        Reply::Window(window) => Ok(Json(Added { window })),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path((name, id)): Path<(String, WindowId)>,
) -> Result<StatusCode, Refusal> {
    let client = authorize(&service, &headers, Scope::Admin).await?;
    let host = host_of(&service, &name).await?;
    info!(
        by = client.name,
        host = name,
        window = id.0,
        "a client takes a window away"
    );
    match service
        .coordinator
        .handle(Request::RemoveWindow(host, id))
        .await
    {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(Refusal::of(other)),
    }
}
