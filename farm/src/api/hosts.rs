//! The requests of hosts. The key decides which host it is; nothing in a request does.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use farm_core::messages::{Poll, PollAnswer, Release, Reply, Report, Request};
use farm_core::{HostId, Terms};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Refusal, Service, bearer};
use crate::secret;

/// A request to enrol. The host makes its key itself, so that a lost answer loses nothing.
#[derive(Debug, Deserialize)]
pub(super) struct Enrolment {
    pub(super) token: String,
    pub(super) key: String,
}

/// The number of an enrolled host.
#[derive(Debug, Serialize)]
pub(super) struct Enrolled {
    pub(super) host: HostId,
}

pub(super) async fn enrol(
    State(service): State<Arc<Service>>,
    Json(enrolment): Json<Enrolment>,
) -> Result<Json<Enrolled>, Refusal> {
    if enrolment.key.len() < secret::KEY_LENGTH_MIN {
        let least = secret::KEY_LENGTH_MIN;
        let message = format!("the key of a host needs {least} characters at least");
        return Err(Refusal(StatusCode::BAD_REQUEST, message));
    }
    let (token, key) = (secret::hash(&enrolment.token), secret::hash(&enrolment.key));
    Refusal::check_attempt(&service, &token)?;
    let store = service.coordinator.store();
    let enrolled = match store.enrol(token, key).await {
        Ok(enrolled) => enrolled,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot enrol a host");
            return Err(Refusal::unavailable());
        }
    };
    let Some(host) = enrolled else {
        warn!("a host could not enrol, because its token is unknown, used or too old");
        let message = "the token is unknown, used or too old; \
                       `buildhost-farm invite NAME` makes another one";
        return Err(Refusal(StatusCode::FORBIDDEN, message.to_owned()));
    };
    info!(host = host.0, "a host has enrolled");
    Ok(Json(Enrolled { host }))
}

/// Returns the terms of this farm's leases to one of its hosts.
pub(super) async fn terms(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<Terms>, Refusal> {
    host(&service, &headers).await?;
    Ok(Json(service.coordinator.terms()))
}

pub(super) async fn poll(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(poll): Json<Poll>,
) -> Result<Json<PollAnswer>, Refusal> {
    let host = host(&service, &headers).await?;
    match service.coordinator.handle(Request::Poll(host, poll)).await {
        Reply::Leases(answer) => Ok(Json(answer)),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn report(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(report): Json<Report>,
) -> Result<StatusCode, Refusal> {
    let host = host(&service, &headers).await?;
    settled(&service, host, Request::Report(host, report)).await
}

pub(super) async fn release(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(release): Json<Release>,
) -> Result<StatusCode, Refusal> {
    let host = host(&service, &headers).await?;
    settled(&service, host, Request::Release(host, release)).await
}

async fn settled(service: &Service, host: HostId, request: Request) -> Result<StatusCode, Refusal> {
    match service.coordinator.handle(request).await {
        Reply::Recorded(_) | Reply::Released(_) => Ok(StatusCode::NO_CONTENT),
        other => {
            if let Reply::Stale(lease) = &other {
                warn!(host = host.0, %lease, "refused a result of a lease that is over or of others");
            }
            Err(Refusal::of(other))
        }
    }
}

/// Returns the host that a key belongs to.
pub(super) async fn host(service: &Service, headers: &HeaderMap) -> Result<HostId, Refusal> {
    let key = bearer(headers)?;
    let store = service.coordinator.store();
    if let Some((host, _)) = store.known_host(&key) {
        return Ok(host);
    }
    Refusal::check_attempt(service, &key)?;
    match store.host(key).await {
        Ok(Some((host, _))) => {
            service.attempts.succeeded(key, Instant::now());
            Ok(host)
        }
        Ok(None) => {
            warn!("refused a request with an unknown or revoked key of a host");
            let message = "the key belongs to no host; it was revoked or replaced";
            Err(Refusal(StatusCode::UNAUTHORIZED, message.to_owned()))
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot read the keys of hosts");
            Err(Refusal::unavailable())
        }
    }
}
