//! The requests of clients that change something: submit, cancel, drain.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use config::BuildId;
use config::builds::Submitter;
use config::tokens::Scope;
use farm_core::messages::{NewBuild, Reply, Request, Submission};
use farm_core::schedules::KEY_PREFIX;
use farm_core::{HostId, Work};
use serde::Serialize;
use tracing::info;

use super::auth::{Client, authorize};
use super::sources::no_source;
use super::views::no_host;
use super::{Refusal, Service};

/// The number of a submitted build.
#[derive(Debug, Serialize)]
pub(super) struct Submitted {
    pub(super) build: BuildId,
}

pub(super) async fn submit(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(submission): Json<NewBuild>,
) -> Result<(StatusCode, Json<Submitted>), Refusal> {
    check_work(&submission.requirements.work)?;
    let client = authorize(&service, &headers, Scope::Submit).await?;
    check_key(&submission.key)?;
    let submission = own(submission, &client)?;
    let submit = Request::Submit(submission.clone());
    match service.coordinator.handle(submit).await {
        Reply::Submitted(build) => Ok((StatusCode::CREATED, Json(Submitted { build }))),
        Reply::NoSource(digests) => {
            let sources = &submission.requirements.work.sources;
            Err(no_source(sources, &digests))
        }
        other => Err(Refusal::of(other)),
    }
}

/// Checks what a build does, as far as the farm knows.
pub(super) fn check_work(work: &Work) -> Result<(), Refusal> {
    let most = Work::SCRIPT_BYTES_MAX;
    if work.script.len() > most {
        let message =
            format!("the script of a build has at most {most} bytes; let it fetch what it needs");
        return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, message));
    }
    let refuse = |message: String| Err(Refusal(StatusCode::BAD_REQUEST, message));
    let most = Work::SOURCES_MAX;
    if work.sources.len() > most {
        return refuse(format!("a build has at most {most} sources"));
    }
    let names: BTreeSet<_> = work.sources.iter().map(|it| it.name.as_str()).collect();
    if names.len() < work.sources.len() {
        return refuse("two sources have the same name; all are in one directory".to_owned());
    }
    Ok(())
}

pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Path(build): Path<BuildId>,
) -> Result<StatusCode, Refusal> {
    match request(&service, &headers, Scope::Submit, Request::Cancel(build)).await? {
        Reply::Canceled(_) => Ok(StatusCode::NO_CONTENT),
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
    let client = authorize(&service, &headers, Scope::Admin).await?;
    info!(
        by = client.name,
        host = name,
        drained,
        "drained or undrained by a client"
    );
    drain_host(&service, &name, drained).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drains or undrains a host.
pub(super) async fn drain_host(
    service: &Service,
    name: &str,
    drained: bool,
) -> Result<(), Refusal> {
    let drain = Request::Drain(host_of(service, name).await?, drained);
    match service.coordinator.handle(drain).await {
        Reply::Done => Ok(()),
        other => Err(Refusal::of(other)),
    }
}

/// Returns the number of the host with a name.
pub(super) async fn host_of(service: &Service, name: &str) -> Result<HostId, Refusal> {
    let found = service.coordinator.store().host_of_name(name).await;
    let found = found.map_err(|_| Refusal::unavailable())?;
    found.ok_or_else(|| no_host(name))
}

async fn request(
    service: &Service,
    headers: &HeaderMap,
    needed: Scope,
    request: Request,
) -> Result<Reply, Refusal> {
    let client = authorize(service, headers, needed).await?;
    if needed == Scope::Admin {
        info!(by = client.name, ?request, "changed by a client");
    }
    Ok(service.coordinator.handle(request).await)
}

/// Returns a submission in the name of its client. Only administrators submit for others.
fn own(submission: NewBuild, client: &Client) -> Result<Submission, Refusal> {
    let submitter = submitter_of(submission.submitter.as_ref(), client)?;
    Ok(Submission {
        key: submission.key,
        submitter,
        priority: submission.priority,
        requirements: submission.requirements,
        subject: submission.subject,
    })
}

/// Returns the submitter of a client's builds. Only administrators name others.
pub(super) fn submitter_of(
    wanted: Option<&Submitter>,
    client: &Client,
) -> Result<Submitter, Refusal> {
    let own = format!("token:{}", client.name);
    let own: Submitter = own.parse().map_err(|_| {
        let message = format!("token {} is not the name of a submitter", client.name);
        Refusal(StatusCode::FORBIDDEN, message)
    })?;
    let submitter = wanted.unwrap_or(&own);
    if *submitter != own && client.scope < Scope::Admin {
        let message = format!("token {} submits as {own}, not as {submitter}", client.name);
        return Err(Refusal(StatusCode::FORBIDDEN, message));
    }
    Ok(submitter.clone())
}

/// Refuses the keys that the farm gives to the runs of schedules.
pub(super) fn check_key(key: &str) -> Result<(), Refusal> {
    if !key.starts_with(KEY_PREFIX) {
        return Ok(());
    }
    let message =
        format!("keys that begin with `{KEY_PREFIX}` belong to schedules; choose another");
    Err(Refusal(StatusCode::BAD_REQUEST, message))
}
