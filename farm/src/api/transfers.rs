//! Logs and artifacts of builds and images of machines, from the hosts that have them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CONNECTION, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use config::tokens::Scope;
use config::{BuildId, FileName, MachineName};
use farm_core::sources::choose_source;
use farm_core::transfers::{PROTOCOL, STATUS, TransferId, Wanted};
use farm_core::{HostId, Lease, Published, Revision};
use farm_store::Site;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::copy_bidirectional;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::archives::archived;
use super::auth::authorize;
use super::hosts::host;
use super::{Refusal, Service};
use crate::transfers::{OpenError, Opened, Place, Sender};

/// The headers of the sending host that the receiver gets.
const PASSED_ON: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_DISPOSITION];

/// The part of a log that a client wants.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogPart {
    offset: u64,
    follow: bool,
}

pub(super) async fn log(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
    Query(part): Query<LogPart>,
) -> Result<Response, Refusal> {
    let LogPart { offset, follow } = part;
    let log = |lease| Wanted::Log {
        lease,
        offset,
        follow,
    };
    file(&service, &headers, build, log).await
}

pub(super) async fn artifacts(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<Response, Refusal> {
    let artifacts = |lease| Wanted::Artifacts { lease };
    file(&service, &headers, build, artifacts).await
}

pub(super) async fn artifact(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path((build, name)): Path<(BuildId, FileName)>,
) -> Result<Response, Refusal> {
    let artifact = |lease| Wanted::Artifact { lease, name };
    file(&service, &headers, build, artifact).await
}

pub(super) async fn provenance(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<Response, Refusal> {
    let provenance = |lease| Wanted::Provenance {
        lease,
        signed: false,
    };
    file(&service, &headers, build, provenance).await
}

pub(super) async fn signed_provenance(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<Response, Refusal> {
    let provenance = |lease| Wanted::Provenance {
        lease,
        signed: true,
    };
    file(&service, &headers, build, provenance).await
}

/// Answers with a file of the host that has run a build.
async fn file(
    service: &Service,
    headers: &HeaderMap,
    build: BuildId,
    wanted: impl FnOnce(Lease) -> Wanted,
) -> Result<Response, Refusal> {
    authorize(service, headers, Scope::Read).await?;
    send(service, build, wanted).await
}

/// Sends a file of a build that has ended from the object store, or a file of the host that has run it.
pub(super) async fn send(
    service: &Service,
    build: BuildId,
    wanted: impl FnOnce(Lease) -> Wanted,
) -> Result<Response, Refusal> {
    let site = service.coordinator.store().site(build).await;
    let Some(site) = site.map_err(|_| Refusal::unavailable())? else {
        let message = format!("no host runs or has run build {build}, so that it has no files");
        return Err(Refusal(StatusCode::NOT_FOUND, message));
    };
    let Site { host, lease, .. } = site;
    let wanted = wanted(lease);
    if site.outcome.is_some()
        && let Some(archived) = archived(service, build, &wanted).await?
    {
        return Ok(archived);
    }
    let opened = open(service, host, wanted).await;
    let opened = opened.map_err(|refusal| refusal.about(&format!("the files of build {build}")))?;
    let file = opened.into_file().ok_or_else(unexpected)?;
    let status = StatusCode::from_u16(file.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = Body::from_stream(file.content).into_response();
    *response.status_mut() = status;
    for name in PASSED_ON {
        if let Some(value) = file.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// Takes a file from the host that was asked for it.
pub(super) async fn supply(
    State(service): State<Arc<Service>>,
    Path(id): Path<TransferId>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let host = host(&service, request.headers()).await?;
    let waiting = service.coordinator.transfers().take(&id, host);
    let waiting = waiting.ok_or_else(nobody_waits)?;
    let (parts, body) = request.into_parts();
    let status = parts.headers.get(STATUS).and_then(|it| it.to_str().ok());
    let status = status.and_then(|it| it.parse().ok()).unwrap_or(200);
    let (done, ended) = oneshot::channel();
    let sender = Sender::File {
        status,
        headers: parts.headers,
        body,
        done,
    };
    waiting.send(sender).map_err(|_| nobody_waits())?;
    // The connection must stay open until the receiver has taken everything, or has gone.
    let _ = ended.await;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the connection of a host that sends an image.
pub(super) async fn join(
    State(service): State<Arc<Service>>,
    Path(id): Path<TransferId>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let host = host(&service, request.headers()).await?;
    let upgrade = upgrade(&mut request)?;
    let waiting = service.coordinator.transfers().take(&id, host);
    let waiting = waiting.ok_or_else(nobody_waits)?;
    let sender = Sender::Dialogue(upgrade);
    waiting.send(sender).map_err(|_| nobody_waits())?;
    Ok(switch())
}

/// Connects a host that fetches a revision with one that has it.
pub(super) async fn fetch(
    State(service): State<Arc<Service>>,
    Path((machine, revision)): Path<(MachineName, Revision)>,
    mut request: Request,
) -> Result<Response, Refusal> {
    let receiver = host(&service, request.headers()).await?;
    let upgrade = upgrade(&mut request)?;
    let transfers = service.coordinator.transfers();
    let alive = service.coordinator.alive();
    let published = service.coordinator.store().published().await;
    let published = published.map_err(|_| Refusal::unavailable())?;
    // Another revision than the published one may come from any host that has it.
    let wanted = published.get(&machine).filter(|it| it.revision == revision);
    let content = wanted.and_then(|it| it.content.clone());
    let source = choose_source(
        receiver,
        &machine,
        &Published { revision, content },
        &alive.hosts,
        &transfers.sending(),
        &transfers.failed(),
    );
    let Some(source) = source else {
        let revision = revision.0;
        let message = format!(
            "no host that is alive has revision {revision} of {machine}; repeat the request when one is"
        );
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, message));
    };
    let image = Wanted::Image {
        machine: machine.clone(),
        revision,
    };
    let opened = open(&service, source, image).await;
    let what = format!("revision {} of {machine}", revision.0);
    let Opened { sender, place } = opened.map_err(|refusal| refusal.about(&what))?;
    let Sender::Dialogue(sender) = sender else {
        return Err(unexpected());
    };
    info!(machine = %machine, revision = revision.0, from = source.0, to = receiver.0, "an image travels");
    tokio::spawn(relay(sender, upgrade, place));
    Ok(switch())
}

/// Copies between two connections until one ends. Each end has its own limits for silence.
async fn relay(sender: OnUpgrade, receiver: OnUpgrade, place: Place) {
    let _place = place;
    let (Ok(sender), Ok(receiver)) = tokio::join!(sender, receiver) else {
        return;
    };
    let (mut sender, mut receiver) = (TokioIo::new(sender), TokioIo::new(receiver));
    if let Err(error) = copy_bidirectional(&mut sender, &mut receiver).await {
        let error = &error as &dyn std::error::Error;
        warn!(error, "a transfer was cut");
    }
}

async fn open(service: &Service, host: HostId, wanted: Wanted) -> Result<Opened, Unopened> {
    let named = async {
        let name = service.coordinator.store().host_name(host).await;
        let name = name.unwrap_or_default();
        name.unwrap_or_else(|| host.0.to_string())
    };
    if !service.coordinator.alive().hosts.contains_key(&host) {
        return Err(Unopened::Lost(named.await));
    }
    match service.coordinator.transfers().open(host, wanted).await {
        Ok(opened) => Ok(opened),
        Err(OpenError::Absent) => Err(Unopened::Absent(named.await)),
        Err(OpenError::Full) => Err(Unopened::Full),
        Err(OpenError::Database(error)) => {
            let error = &error as &dyn std::error::Error;
            warn!(error, "cannot ask a host for a transfer");
            Err(Unopened::Database)
        }
    }
}

/// The reason for which a transfer did not begin.
#[derive(Debug)]
enum Unopened {
    Lost(String),
    Absent(String),
    Full,
    Database,
}

impl Unopened {
    fn about(self, what: &str) -> Refusal {
        let message = match self {
            Self::Lost(host) => format!(
                "host {host} has {what} and gives no sign of life; repeat the request when it is back"
            ),
            Self::Absent(host) => format!(
                "host {host} has {what} and did not send it in time; repeat the request later"
            ),
            Self::Full => format!(
                "this coordinator has too many transfers to fetch {what}; repeat the request later or at another one"
            ),
            Self::Database => return Refusal::unavailable(),
        };
        Refusal(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

fn nobody_waits() -> Refusal {
    let message = "nobody waits for this transfer any more";
    Refusal(StatusCode::GONE, message.to_owned())
}

fn unexpected() -> Refusal {
    let message = "the host has sent something else than it was asked for";
    Refusal(StatusCode::BAD_GATEWAY, message.to_owned())
}

/// Returns the upgrade of a request's connection.
fn upgrade(request: &mut Request) -> Result<OnUpgrade, Refusal> {
    let requested = request.headers().get(UPGRADE);
    let is_requested = requested.is_some_and(|it| it == PROTOCOL);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| is_requested).ok_or_else(|| {
        let message = format!("this request needs the header `Upgrade: {PROTOCOL}`");
        Refusal(StatusCode::BAD_REQUEST, message)
    })
}

/// Returns the answer that switches to the protocol of images.
fn switch() -> Response {
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
