//! The requests of clients: submit, cancel, explain, publish, drain.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use config::task::Outcome;
use config::{BuildId, MachineName};
use farm_core::messages::{Reply, Request, Submission};
use farm_core::operation::{Answer, HostRow, Operation};
use farm_core::placement::why;
use farm_core::{HostId, Offer, Requirements, Revision};
use serde::{Deserialize, Serialize};

use super::{Refusal, Service, bearer};

/// The number of a submitted build.
#[derive(Debug, Serialize)]
pub(super) struct Submitted {
    build: BuildId,
}

/// The state of a build.
#[derive(Debug, Serialize)]
pub(super) struct Build {
    #[serde(rename = "build")]
    id: BuildId,
    requirements: Requirements,
    host: Option<String>,
    outcome: Option<Outcome>,
    /// The reason for which it waits.
    why: Option<String>,
}

/// A host of the farm.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    name: String,
    drained: bool,
    builds: u64,
    offer: Offer,
}

/// A revision that becomes current.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Publication {
    revision: Revision,
}

pub(super) async fn submit(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(submission): Json<Submission>,
) -> Result<(StatusCode, Json<Submitted>), Refusal> {
    match request(&service, &headers, Request::Submit(submission)).await? {
        Reply::Submitted(build) => Ok((StatusCode::CREATED, Json(Submitted { build }))),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<StatusCode, Refusal> {
    match request(&service, &headers, Request::Cancel(build)).await? {
        Reply::Canceled(_) => Ok(StatusCode::NO_CONTENT),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn publish(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(machine): Path<MachineName>,
    Json(publication): Json<Publication>,
) -> Result<Json<Publication>, Refusal> {
    let publish = Request::Publish(machine, publication.revision);
    match request(&service, &headers, publish).await? {
        Reply::Published(_, revision) => Ok(Json(Publication { revision })),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn drain(
    state: State<Arc<Service>>,
    headers: HeaderMap,
    host: Path<String>,
) -> Result<StatusCode, Refusal> {
    set_drain(state, headers, host, true).await
}

pub(super) async fn undrain(
    state: State<Arc<Service>>,
    headers: HeaderMap,
    host: Path<String>,
) -> Result<StatusCode, Refusal> {
    set_drain(state, headers, host, false).await
}

async fn set_drain(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(name): Path<String>,
    drained: bool,
) -> Result<StatusCode, Refusal> {
    check(&service, &headers)?;
    let names = names(&service).await?;
    let host = names.iter().find(|(_, known)| **known == name);
    let Some((host, _)) = host else {
        let message = format!("host {name} does not exist in the farm");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    };
    match request(&service, &headers, Request::Drain(*host, drained)).await? {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn hosts(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Result<Json<Vec<Host>>, Refusal> {
    check(&service, &headers)?;
    let hosts = named_hosts(&service).await?.into_iter();
    let hosts = hosts.map(|(name, row)| Host {
        name,
        drained: row.drained,
        builds: row.leases,
        offer: row.offer,
    });
    Ok(Json(hosts.collect()))
}

pub(super) async fn show(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<Json<Build>, Refusal> {
    check(&service, &headers)?;
    let Answer::Build(row) = read(&service, &Operation::Show(build)).await? else {
        let message = format!("build {build} does not exist in the farm");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    };
    let host = match row.host {
        Some(host) => names(&service).await?.remove(&host),
        None => None,
    };
    let why = if host.is_none() && row.outcome.is_none() {
        let published = service.coordinator.store().published().await;
        let published = published.map_err(|_| Refusal::unavailable())?;
        let hosts = named_hosts(&service).await?;
        Some(why(&row.requirements, &hosts, &published))
    } else {
        None
    };
    Ok(Json(Build {
        id: build,
        requirements: row.requirements,
        host,
        outcome: row.outcome,
        why,
    }))
}

/// Checks the token of a client.
fn check(service: &Service, headers: &HeaderMap) -> Result<(), Refusal> {
    // Hashes are compared, so that the time of the comparison tells nothing about the token.
    if bearer(headers)? == service.client_token {
        return Ok(());
    }
    let message = "the token is not the one of this farm's clients";
    Err(Refusal(StatusCode::FORBIDDEN, message.to_owned()))
}

async fn request(
    service: &Service,
    headers: &HeaderMap,
    request: Request,
) -> Result<Reply, Refusal> {
    check(service, headers)?;
    Ok(service.coordinator.handle(request).await)
}

async fn read(service: &Service, operation: &Operation) -> Result<Answer, Refusal> {
    let answer = service.coordinator.store().apply(operation).await;
    answer.map_err(|_| Refusal::unavailable())
}

async fn names(service: &Service) -> Result<BTreeMap<HostId, String>, Refusal> {
    let names = service.coordinator.store().host_names().await;
    names.map_err(|_| Refusal::unavailable())
}

async fn named_hosts(service: &Service) -> Result<Vec<(String, HostRow)>, Refusal> {
    let mut names = names(service).await?;
    let Answer::Hosts(rows) = read(service, &Operation::Hosts).await? else {
        return Err(Refusal::unavailable());
    };
    let rows = rows.into_iter();
    let rows = rows.filter_map(|row| Some((names.remove(&row.host)?, row)));
    Ok(rows.collect())
}
