//! Requests about builds.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::BuildId;
use config::builds::{Build, Cancellation, Fork, ListQuery, Request};
use config::task::Outcome;
use jiff::Timestamp;
use records::{Deletion, IdempotencyKey};
use sys::blocking::blocking;
use sys::file::digest_of;
use tracing::info;

use super::auth::Caller;
use super::error::ApiError;
use crate::housekeeping::retention;
use crate::triggers::submission::{self, Submission, check};
use jobs::end_without_start;
use jobs::fork::ForkRefusal;
use state::paths::attempts;
use state::{AgentState, CancelAnswer};

/// The maximum length of an idempotency key.
const KEY_MAX: usize = 255;

/// Lists builds. The header `Link` has the next page.
pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    listing: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(listing) = listing?;
    let mut builds = agent.records.list(listing.clone()).await?;
    add_jobs(&agent, &mut builds);
    let next = listing.next(&builds).and_then(|next| {
        let query = serde_urlencoded::to_string(next).ok()?;
        Some([(
            header::LINK,
            format!("</api/v1/builds?{query}>; rel=\"next\""),
        )])
    });
    Ok((next, Json(builds)).into_response())
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<Json<Build>, ApiError> {
    let Path(id) = id?;
    let mut build = find(&agent, id).await?;
    add_jobs(&agent, std::slice::from_mut(&mut build));
    let directory = agent.paths.build(id);
    // A build that waits has no directory yet.
    build.earlier_logs = blocking(move || attempts(&directory).unwrap_or_default()).await;
    Ok(Json(build))
}

/// Adds what only the table of jobs knows: the number of running debug sessions of each build,
/// and why the outcome of a build is not stored.
pub(super) fn add_jobs(agent: &AgentState, builds: &mut [Build]) {
    let jobs = agent.jobs.running();
    for build in builds {
        let sessions = jobs.debug_sessions.keys();
        let copies = sessions.filter(|tag| tag.build == build.id);
        build.interactive.copies = NonZeroUsize::new(copies.count());
        if let Some(reason) = jobs.unstored.get(&build.id)
            && build.outcome.is_none()
        {
            build.state = config::builds::State::Storing;
            build.message = format!("until its outcome can be stored: {reason}");
        }
    }
}

/// Returns the record of a build.
pub(super) async fn find(agent: &AgentState, id: BuildId) -> Result<Build, ApiError> {
    agent
        .records
        .get(id)
        .await?
        .ok_or_else(|| ApiError::build_not_found(id))
}

pub(super) async fn submit(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    request: Result<Json<Request>, JsonRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Json(request) = request?;
    let once = idempotency_key(&headers, &request)?;
    answer(submit_request(&agent, &caller, request, once).await?)
}

/// Checks and submits a request.
pub(super) async fn submit_request(
    agent: &Arc<AgentState>,
    caller: &Caller,
    request: Request,
    once: Option<IdempotencyKey>,
) -> Result<Submission, ApiError> {
    let submitter = caller.submitter_of(&request)?;
    // A repetition gets the same answer, whatever has changed since.
    if let Some(once) = &once {
        let before = agent
            .records
            .find_replay(once, &submitter, Timestamp::now());
        if let Some(before) = before.await? {
            return Ok(before.into());
        }
    }
    if agent.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    check::check_form(&request)?;
    let toolchain = check::resolve_toolchain(agent, &request).await?;
    // Under the lock no source is deleted between the check and the record that names it,
    // and the second of two equal concurrent requests finds the first.
    let _queue = agent.queue.lock().await;
    check::check_sources(agent, &request).await?;
    check::check_dependencies(agent, &request).await?;
    check::check_secrets(agent, &request, &submitter).await?;
    Ok(submission::submit(agent, request, toolchain, submitter, once).await?)
}

fn answer(submission: Submission) -> Result<(StatusCode, Json<Build>), ApiError> {
    match submission {
        Submission::Created(build) => Ok((StatusCode::CREATED, Json(build))),
        Submission::Existing(build) => Ok((StatusCode::OK, Json(build))),
        Submission::Deleted => Err(ApiError::conflict(
            "the build of this Idempotency-Key was deleted; use another key",
        )),
        Submission::KeyConflict => Err(ApiError::unprocessable(
            "this Idempotency-Key was used for a different request within a week; use another key",
        )),
    }
}

/// Returns the idempotency key of a request; `None` without one.
fn idempotency_key(
    headers: &HeaderMap,
    request: &Request,
) -> Result<Option<IdempotencyKey>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = key.to_str().unwrap_or_default();
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(ApiError::bad_request(format!(
            "an Idempotency-Key has 1 to {KEY_MAX} printable ASCII characters"
        )));
    }
    let text = serde_json::to_vec(request).map_err(|error| ApiError::internal(&error))?;
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        sha256: digest_of(&text),
    }))
}

/// Deletes the record and the files of a build.
pub(super) async fn delete(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    match retention::delete_build(&agent, id).await? {
        Deletion::Done => {
            info!(build = %id, "build deleted");
            Ok(StatusCode::NO_CONTENT)
        }
        Deletion::Missing => Err(ApiError::build_not_found(id)),
        Deletion::Unfinished => Err(ApiError::conflict(format!(
            "build {id} has not ended yet; cancel it first"
        ))),
        Deletion::Held => Err(ApiError::conflict(format!(
            "build {id} is held for debugging; `buildhost release {id}` first"
        ))),
        Deletion::Unreported => Err(ApiError::conflict(format!(
            "the result of build {id} has not reached its controller yet; `buildhost controllers` says why"
        ))),
        Deletion::Awaited => Err(ApiError::conflict(format!(
            "an unfinished build depends on build {id}; cancel that one first"
        ))),
    }
}

pub(super) async fn cancel(
    State(agent): State<Arc<AgentState>>,
    id: Result<Path<BuildId>, PathRejection>,
) -> Result<(StatusCode, Json<Build>), ApiError> {
    let Path(id) = id?;
    let _queue = agent.queue.lock().await;
    let build = find(&agent, id).await?;
    let cancellation = build.state.cancellation();
    if cancellation == Cancellation::TooLate {
        return Err(too_late(&build));
    }
    match (agent.jobs.cancel_build(id), cancellation) {
        (CancelAnswer::Accepted, _) => {
            // The next agent knows it from the record, if this one ends before the guest.
            agent.records.request_cancel(id).await?;
            Ok((StatusCode::ACCEPTED, Json(build)))
        }
        (CancelAnswer::Concluded, Cancellation::Interrupt | Cancellation::TooLate) => Err(
            ApiError::conflict(format!("build {id} has ended; its outcome is being stored")),
        ),
        // It waits for another attempt, or has never started.
        (CancelAnswer::Concluded, Cancellation::Dequeue) | (CancelAnswer::NotRunning, _) => {
            dequeue(&agent, id).await
        }
    }
}

/// Forks a running build. Returns its copies, which start.
pub(super) async fn fork(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<BuildId>, PathRejection>,
    request: Result<Json<Fork>, JsonRejection>,
) -> Result<(StatusCode, Json<Vec<Build>>), ApiError> {
    let Path(id) = id?;
    let Json(Fork { copies }) = request?;
    if !(1..=Fork::COPIES_MAX).contains(&copies) {
        return Err(ApiError::unprocessable(format!(
            "a build is forked into 1 to {} copies, not {copies}",
            Fork::COPIES_MAX
        )));
    }
    if agent.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let build = find(&agent, id).await?;
    let copies = jobs::fork::fork(&agent, build, copies, caller.submitter).await?;
    Ok((StatusCode::CREATED, Json(copies)))
}

impl From<ForkRefusal> for ApiError {
    fn from(error: ForkRefusal) -> Self {
        match error {
            ForkRefusal::NotRunning(..)
            | ForkRefusal::Container(_)
            | ForkRefusal::Secrets(_)
            | ForkRefusal::Driven(_)
            | ForkRefusal::Trial(..)
            | ForkRefusal::Auxiliaries(_)
            | ForkRefusal::Busy(_)
            | ForkRefusal::Rejected(..)
            | ForkRefusal::Guest { .. } => Self::conflict(error.to_string()),
            ForkRefusal::Stopping(_) => Self::stopping(),
            ForkRefusal::Store(error) => error.into(),
            ForkRefusal::Records(error) => error.into(),
            error @ ForkRefusal::Job(_) => Self::internal(&error),
        }
    }
}

fn too_late(build: &Build) -> ApiError {
    let id = build.id;
    ApiError::conflict(match build.outcome {
        Some(outcome) => format!("build {id} has already finished: {outcome}"),
        None => format!("build {id} has its result already; it is being stored"),
    })
}

/// Ends a build that has no guest.
async fn dequeue(agent: &AgentState, id: BuildId) -> Result<(StatusCode, Json<Build>), ApiError> {
    let end = |build: &mut Build| {
        let message = "it was canceled".to_owned();
        build.outcome.is_none() && end_without_start(build, Outcome::Abort, message).is_ok()
    };
    match agent.records.change(id, end).await? {
        Some((build, true)) => {
            agent.wake.notify_one();
            Ok((StatusCode::OK, Json(build)))
        }
        Some((build, false)) => Err(too_late(&build)),
        None => Err(ApiError::build_not_found(id)),
    }
}
