//! Schedules.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::ScheduleName;
use config::builds::{Build, Request};
use config::schedule::{NewSchedule, Page, SCHEDULES_MAX, Schedule};
use jiff::Timestamp;
use records::Added;
use sys::blocking::blocking;

use super::auth::Caller;
use super::error::ApiError;
use crate::triggers::schedule::{self as schedules, resolve_timing, with_next};
use crate::triggers::submission::check;
use state::AgentState;

/// Lists schedules in the order of their names. The header `Link` has the next page.
pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(mut page) = page?;
    let count = page.count.unwrap_or(SCHEDULES_MAX).min(SCHEDULES_MAX);
    page.count = Some(count);
    let all = agent.records.schedules(page.clone()).await?;
    let now = Timestamp::now();
    let all: Vec<_> = all
        .into_iter()
        .map(|schedule| with_next(schedule, now))
        .collect();
    let last = all.last().filter(|_| all.len() as u64 >= u64::from(count));
    let next = last.and_then(|last| {
        page.from = Some(last.name.clone());
        let query = serde_urlencoded::to_string(&page).ok()?;
        let link = format!("</api/v1/schedules?{query}>; rel=\"next\"");
        Some([(header::LINK, link)])
    });
    Ok((next, Json(all)).into_response())
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<Json<Schedule>, ApiError> {
    let Path(name) = name?;
    let schedule = find(&agent, &name).await?;
    Ok(Json(with_next(schedule, Timestamp::now())))
}

pub(super) async fn add(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    new: Result<Json<NewSchedule>, JsonRejection>,
) -> Result<(StatusCode, Json<Schedule>), ApiError> {
    let Json(new) = new?;
    let submitter = caller.submitter_of(&new.build)?;
    check_schedulable(&new)?;
    if let Some(project) = &new.project {
        let (catalog, name) = (agent.catalog.clone(), project.name.clone());
        blocking(move || catalog.project(&name)).await?;
    }
    if !new.unchecked {
        check::resolve_toolchain(&agent, &new.build).await?;
        check::check_secrets(&agent, &new.build, &submitter).await?;
    }
    let now = Timestamp::now();
    let timing = resolve_timing(new.timing, now)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let schedule = Schedule {
        name: new.name,
        timing,
        build: Request {
            submitter: None,
            ..new.build
        },
        project: new.project,
        submitter,
        added: now,
        since: now,
        last: None,
        next: None,
    };
    let schedule = with_next(schedule, now);
    if schedule.next.is_none() {
        let detail = format!("the schedule never runs: {}", schedule.timing);
        return Err(ApiError::bad_request(detail));
    }
    // Under the lock no source is deleted before the schedule that names it is recorded.
    let _queue = agent.queue.lock().await;
    if new.dry_run {
        let exists_already = agent.records.schedule(&schedule.name).await?.is_some();
        if exists_already && !new.replace {
            return Err(name_taken(&schedule.name));
        }
        return Ok((StatusCode::OK, Json(schedule)));
    }
    check::check_sources(&agent, &schedule.build).await?;
    match schedules::add(&agent, &schedule, new.replace).await? {
        Added::New => Ok((StatusCode::CREATED, Json(schedule))),
        Added::Replaced => Ok((StatusCode::OK, Json(schedule))),
        Added::Exists => Err(name_taken(&schedule.name)),
        Added::Full => Err(ApiError::conflict(format!(
            "there are {SCHEDULES_MAX} schedules already, the maximum; remove some"
        ))),
    }
}

/// Checks that a build can be submitted repeatedly and runs without a person.
fn check_schedulable(new: &NewSchedule) -> Result<(), ApiError> {
    let build = &new.build;
    match &new.project {
        None => check::check_form(build)?,
        Some(_) if build.sources.is_empty() => check::check_unresolved(build)?,
        Some(project) => {
            return Err(ApiError::bad_request(format!(
                "the build has sources and the project {}, whose sources are made at each run",
                project.name
            )));
        }
    }
    if build.interactive.is_some() {
        return Err(ApiError::bad_request(
            "a scheduled build cannot have a breakpoint; it can be held when it fails",
        ));
    }
    if build.commands.is_some() {
        return Err(ApiError::bad_request(
            "a scheduled build cannot wait for commands; `buildhost guest start` starts such a guest",
        ));
    }
    if !build.after.is_empty() {
        return Err(ApiError::bad_request(
            "a scheduled build cannot depend on other builds, which have finished when it runs again",
        ));
    }
    Ok(())
}

fn name_taken(name: &ScheduleName) -> ApiError {
    ApiError::conflict(format!(
        "there is a schedule {name} already; replace or remove it, or choose another name"
    ))
}

pub(super) async fn remove(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = name?;
    if schedules::remove(&agent, &name).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(not_found(&name))
}

pub(super) async fn run(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Path(name) = name?;
    if agent.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let schedule = find(&agent, &name).await?;
    let (build, is_new) = schedules::run_now(&agent, &schedule).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(build)))
}

async fn find(agent: &AgentState, name: &ScheduleName) -> Result<Schedule, ApiError> {
    let found = agent.records.schedule(name).await?;
    found.ok_or_else(|| not_found(name))
}

fn not_found(name: &ScheduleName) -> ApiError {
    ApiError::not_found(format!(
        "there is no schedule {name}; `buildhost schedule list` lists all schedules"
    ))
}
