//! Sources: clients upload them, hosts and other coordinators fetch them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use config::task::{Digest, Source};
use config::tokens::Scope;
use futures_util::stream::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::warn;

use super::auth::authorize;
use super::hosts::host;
use super::{Refusal, Service, bearer};
use crate::sources::{Content, PutError, SourceError, Sources};

/// The time for which the rest of a refused upload is read.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Stores a source under its hash.
pub(super) async fn upload(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(digest): Path<Digest>,
    body: Body,
) -> Result<StatusCode, Refusal> {
    authorize(&service, &headers, Scope::Submit).await?;
    let sources = sources(&service)?;
    let mut content = body.into_data_stream();
    let stored = sources.put(&digest, &mut content).await;
    if stored.is_err() {
        // Many clients read no answer while they send.
        let rest = async { while let Some(Ok(_)) = content.next().await {} };
        let _ = timeout(DRAIN_MAX, rest).await;
    }
    stored
        .map(|()| StatusCode::CREATED)
        .map_err(|error| refused(&error))
}

/// A source that a client has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offered {
    bytes: u64,
}

/// The answer to a client that has a source.
#[derive(Debug, Serialize)]
pub(super) struct SourceWanted {
    pub(super) wanted: bool,
}

/// Tells a client that has a source if it is to upload it.
pub(super) async fn offer(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(digest): Path<Digest>,
    offered: Result<Query<Offered>, QueryRejection>,
) -> Result<Json<SourceWanted>, Refusal> {
    authorize(&service, &headers, Scope::Submit).await?;
    let Query(Offered { bytes }) =
        offered.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    let wanted = sources(&service)?.is_wanted(&digest, bytes).await;
    let wanted = wanted.map_err(|error| refused(&error))?;
    Ok(Json(SourceWanted { wanted }))
}

/// Sends a source to a host, or the file of this coordinator to another one.
pub(super) async fn fetch(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(digest): Path<Digest>,
) -> Result<Response, Refusal> {
    let content = if is_peer(&service, &headers).await? {
        sources(&service)?.own(&digest).await
    } else {
        host(&service, &headers).await?;
        sources(&service)?.get(&digest).await
    };
    let Content { length, body } = content.map_err(|error| refused(&error))?;
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length);
    }
    Ok(response)
}

/// Gets a source from the coordinators that have it, for another one.
pub(super) async fn copy(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(digest): Path<Digest>,
) -> Result<StatusCode, Refusal> {
    if !is_peer(&service, &headers).await? {
        let message = "only coordinators of the farm ask for copies of sources";
        return Err(Refusal(StatusCode::FORBIDDEN, message.to_owned()));
    }
    let fetched = sources(&service)?.fetch(&digest).await;
    fetched
        .map(|()| StatusCode::NO_CONTENT)
        .map_err(|error| refused(&error))
}

/// Returns the refusal of a build or a schedule whose sources are away.
pub(super) fn no_source(sources: &[Source], digests: &[Digest]) -> Refusal {
    let sources = sources.iter();
    let missing = sources.filter(|it| digests.contains(&it.sha256));
    let missing: Vec<_> = missing
        .map(|it| format!("{} ({})", it.name, it.sha256))
        .collect();
    let missing = missing.join(", ");
    let message = format!(
        "no coordinator that is alive has {missing}; PUT /farm/v1/sources/HASH uploads a source"
    );
    Refusal(StatusCode::CONFLICT, message)
}

fn sources(service: &Service) -> Result<&Sources, Refusal> {
    service.coordinator.sources().ok_or_else(|| {
        let message = "this coordinator has no part in the sources of the farm";
        Refusal(StatusCode::CONFLICT, message.to_owned())
    })
}

/// Returns true if a request comes from another coordinator.
async fn is_peer(service: &Service, headers: &HeaderMap) -> Result<bool, Refusal> {
    let key = bearer(headers)?;
    let store = service.coordinator.store();
    if store.known_host(&key).is_some() {
        return Ok(false);
    }
    Refusal::check_attempt(service, &key)?;
    let peer = store.coordinator(key).await;
    let peer = peer.map_err(|_| Refusal::unavailable())?;
    if peer.is_some() {
        service.attempts.succeeded(key, Instant::now());
    }
    Ok(peer.is_some())
}

fn refused(error: &SourceError) -> Refusal {
    let status = match error {
        SourceError::NotKept(_) => StatusCode::CONFLICT,
        SourceError::Nowhere(_) => StatusCode::NOT_FOUND,
        SourceError::NotSent(..) | SourceError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        SourceError::Put(error) => match error {
            PutError::Wrong { .. } | PutError::Cut(_) => StatusCode::BAD_REQUEST,
            PutError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            PutError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            PutError::Disk { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        },
    };
    if status.is_server_error() {
        let error = error as &dyn std::error::Error;
        warn!(error, "a request for a source failed");
    }
    Refusal(status, sys::error_report::chain(error))
}
