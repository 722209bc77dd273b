//! The requests of clients about schedules and projects.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use config::ScheduleName;
use config::builds::Submitter;
use config::schedule::{RunResult, SCHEDULES_MAX};
use config::tokens::Scope;
use farm_core::messages::{Reply, Request};
use farm_core::schedules::{Added, NewSchedule, check};
use farm_core::view::{ProjectView, ScheduleView};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::auth::{Client, authorize};
use super::clients::{check_key, check_work, submitter_of};
use super::sources::no_source;
use super::views::{Answer, answer};
use super::{Refusal, Service};

/// The request to run a schedule at once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunNow {
    /// The idempotency key.
    pub(super) key: String,
}

/// The build of a run.
#[derive(Debug, Serialize)]
pub(super) struct Ran {
    pub(super) build: config::BuildId,
    pub(super) result: RunResult,
}

pub(super) async fn list(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Answer<Vec<ScheduleView>> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(service.coordinator.store().schedules().await)
}

pub(super) async fn show(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Answer<ScheduleView> {
    authorize(&service, &headers, Scope::Read).await?;
    find(&service, &named(name)?).await.map(Json)
}

pub(super) async fn add(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Json(new): Json<NewSchedule>,
) -> Result<(StatusCode, Json<ScheduleView>), Refusal> {
    let client = authorize(&service, &headers, Scope::Submit).await?;
    check_work(&new.requirements.work)?;
    let submitter = submitter_of(new.submitter.as_ref(), &client)?;
    // The time zone and the first time are checked here; the times themselves count from the addition.
    let now = Timestamp::now();
    let first = check(&new.timing, now)
        .map_err(|message| Refusal(StatusCode::UNPROCESSABLE_ENTITY, message))?;
    let (name, replaces) = (new.name.clone(), new.replace);
    let sources = new.requirements.work.sources.clone();
    if new.dry_run {
        return rehearse(&service, new, submitter, first).await;
    }
    let add = Request::AddSchedule(Box::new(new.of(submitter)), replaces);
    let status = match service.coordinator.handle(add).await {
        Reply::ScheduleAdded(Added::New | Added::Unchanged) => StatusCode::CREATED,
        Reply::ScheduleAdded(Added::Replaced) => StatusCode::OK,
        Reply::ScheduleAdded(Added::Exists) => return Err(name_taken(&name)),
        Reply::ScheduleAdded(Added::Full) => return Err(full()),
        Reply::NoSource(digests) => return Err(no_source(&sources, &digests)),
        other => return Err(Refusal::of(other)),
    };
    info!(by = client.name, schedule = %name, "a client added a schedule");
    Ok((status, Json(find(&service, &name).await?)))
}

/// Returns a schedule as it would be.
async fn rehearse(
    service: &Service,
    new: NewSchedule,
    submitter: Submitter,
    first: Timestamp,
) -> Result<(StatusCode, Json<ScheduleView>), Refusal> {
    let Json(all) = answer(service.coordinator.store().schedules().await)?;
    let known = all.iter().find(|it| it.schedule.name == new.name);
    if known.is_some() && !new.replace {
        return Err(name_taken(&new.name));
    }
    if known.is_none() && all.len() >= SCHEDULES_MAX as usize {
        return Err(full());
    }
    let now = Timestamp::now();
    let view = ScheduleView {
        is_paused: known.is_some_and(|it| it.is_paused),
        schedule: new.of(submitter),
        added: now,
        since: now,
        last: None,
        next: Some(first),
    };
    Ok((StatusCode::OK, Json(view)))
}

pub(super) async fn remove(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    let client = authorize(&service, &headers, Scope::Submit).await?;
    let name = named(name)?;
    find(&service, &name).await?;
    info!(by = client.name, schedule = %name, "a client removes a schedule");
    change(&service, Request::RemoveSchedule(name)).await
}

pub(super) async fn pause(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    set_paused(&service, &headers, named(name)?, true).await
}

pub(super) async fn resume(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<StatusCode, Refusal> {
    set_paused(&service, &headers, named(name)?, false).await
}

async fn set_paused(
    service: &Service,
    headers: &HeaderMap,
    name: ScheduleName,
    is_paused: bool,
) -> Result<StatusCode, Refusal> {
    let client = authorize(service, headers, Scope::Submit).await?;
    info!(by = client.name, schedule = %name, is_paused, "a client pauses or resumes a schedule");
    change(service, Request::PauseSchedule(name, is_paused)).await
}

pub(super) async fn run(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    name: Result<Path<ScheduleName>, PathRejection>,
    Json(RunNow { key }): Json<RunNow>,
) -> Result<(StatusCode, Json<Ran>), Refusal> {
    let client = authorize(&service, &headers, Scope::Submit).await?;
    check_key(&key)?;
    let ran = run_now(&service, &client, named(name)?, key).await?;
    let status = match ran.result {
        RunResult::Submitted => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(ran)))
}

/// Runs a schedule at once.
pub(super) async fn run_now(
    service: &Service,
    client: &Client,
    name: ScheduleName,
    key: String,
) -> Result<Ran, Refusal> {
    info!(by = client.name, schedule = %name, "a client runs a schedule");
    match service
        .coordinator
        .handle(Request::RunSchedule(name, key))
        .await
    {
        Reply::Ran(build, result) => Ok(Ran { build, result }),
        other => Err(Refusal::of(other)),
    }
}

pub(super) async fn projects(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Answer<Vec<ProjectView>> {
    authorize(&service, &headers, Scope::Read).await?;
    answer(service.coordinator.store().projects().await)
}

/// Changes a schedule that exists.
pub(super) async fn change(service: &Service, request: Request) -> Result<StatusCode, Refusal> {
    match service.coordinator.handle(request).await {
        Reply::Done => Ok(StatusCode::NO_CONTENT),
        other => Err(Refusal::of(other)),
    }
}

async fn find(service: &Service, name: &ScheduleName) -> Result<ScheduleView, Refusal> {
    let Json(found) = answer(service.coordinator.store().schedule(name).await)?;
    found.ok_or_else(|| {
        let message =
            format!("there is no schedule {name}; `buildhost schedule list` lists all schedules");
        Refusal(StatusCode::NOT_FOUND, message)
    })
}

fn named(name: Result<Path<ScheduleName>, PathRejection>) -> Result<ScheduleName, Refusal> {
    let Path(name) = name.map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(name)
}

fn name_taken(name: &ScheduleName) -> Refusal {
    let message =
        format!("there is a schedule {name} already; replace or remove it, or choose another name");
    Refusal(StatusCode::CONFLICT, message)
}

fn full() -> Refusal {
    let message = format!("there are {SCHEDULES_MAX} schedules already, the maximum; remove some");
    Refusal(StatusCode::CONFLICT, message)
}
