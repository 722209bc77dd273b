//! The requests of clients about revisions: publish one, put it on trial, end the trial.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use config::MachineName;
use config::canary::{self, TrialVerdict};
use config::tokens::Scope;
use farm_core::Published;
use farm_core::messages::{NewRevision, Reply, Request};
use farm_core::publication::publication;
use tracing::info;

use super::auth::authorize;
use super::{Refusal, Service};
use crate::view;

pub(super) async fn publish(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(machine): Path<MachineName>,
    Json(wanted): Json<NewRevision>,
) -> Result<Json<Published>, Refusal> {
    let client = authorize(&service, &headers, Scope::Admin).await?;
    let published = service.coordinator.store().published().await;
    let hosts = view::sites(&service.coordinator).await;
    let (Ok(published), Ok(hosts)) = (published, hosts) else {
        return Err(Refusal::unavailable());
    };
    let NewRevision { revision, canary } = wanted;
    let wanted = publication(&machine, revision, published.get(&machine), &hosts)
        .map_err(|error| Refusal(StatusCode::CONFLICT, error.to_string()))?;
    if let Some(terms) = canary {
        info!(by = client.name, %machine, ?wanted, %terms, "put on trial by a client");
        return begin(&service, machine, wanted, terms).await;
    }
    info!(by = client.name, %machine, ?wanted, "published by a client");
    let publish = Request::Publish(machine, wanted.clone());
    match service.coordinator.handle(publish).await {
        Reply::Published(_, revision) if revision == wanted.revision => Ok(Json(wanted)),
        Reply::Published(_, revision) => Ok(Json(Published {
            revision,
            content: None,
        })),
        other => Err(Refusal::of(other)),
    }
}

/// Puts a revision on trial.
async fn begin(
    service: &Service,
    machine: MachineName,
    candidate: Published,
    terms: canary::Terms,
) -> Result<Json<Published>, Refusal> {
    let begin = Request::BeginTrial(machine, candidate.clone(), terms);
    match service.coordinator.handle(begin).await {
        Reply::TrialBegun(_) => Ok(Json(candidate)),
        Reply::Published(machine, published) => {
            let (published, wanted) = (published.0, candidate.revision.0);
            let message = format!(
                "revision {published} of {machine} is published; a trial needs a newer one than that, not {wanted}"
            );
            Err(Refusal(StatusCode::CONFLICT, message))
        }
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn promote(
    state: State<Arc<Service>>,
    headers: HeaderMap,
    machine: Path<MachineName>,
) -> Result<Json<Published>, Refusal> {
    end(state, headers, machine, TrialVerdict::Promoted).await
}

pub(super) async fn roll_back(
    state: State<Arc<Service>>,
    headers: HeaderMap,
    machine: Path<MachineName>,
) -> Result<Json<Published>, Refusal> {
    end(state, headers, machine, TrialVerdict::RolledBack).await
}

/// Ends the open trial of a machine. Returns the revision that was on trial.
async fn end(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(machine): Path<MachineName>,
    verdict: TrialVerdict,
) -> Result<Json<Published>, Refusal> {
    let client = authorize(&service, &headers, Scope::Admin).await?;
    let revisions = service.coordinator.store().revisions().await;
    let (_, trials) = revisions.map_err(|_| Refusal::unavailable())?;
    let Some(trial) = trials.get(&machine).filter(|it| it.is_open()) else {
        let message = format!("no revision of {machine} is on trial");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    };
    info!(by = client.name, %machine, %verdict, "a trial is ended by a client");
    let reason = format!("token {} decided so", client.name);
    let end = Request::EndTrial(machine, trial.number, verdict, reason);
    match service.coordinator.handle(end).await {
        Reply::Done => Ok(Json(trial.candidate.clone())),
        other => Err(Refusal::of(other)),
    }
}
