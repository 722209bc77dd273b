//! The actions of pages: forms that do what a route of the API does, and lead back to the build.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use config::BuildId;
use config::builds::{Build, Request};
use web::Viewer;

use super::super::auth::Caller;
use super::super::error::ApiError;
use super::super::{builds, console};
use super::answer::error_page;
use crate::triggers::submission::Submission;
use state::AgentState;

/// The path of a build in a request.
type BuildPath = Result<Path<BuildId>, PathRejection>;

/// Leads to the page of a build, or shows the error.
fn lead_to(agent: &AgentState, viewer: Viewer, done: Result<BuildId, ApiError>) -> Response {
    match done {
        Ok(id) => Redirect::to(&format!("/builds/{id}")).into_response(),
        Err(error) => error_page(agent, viewer, error),
    }
}

pub(super) async fn rebuild(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    Extension(caller): Extension<Caller>,
    id: BuildPath,
) -> Response {
    let done = submit_again(&agent, &caller, id).await;
    lead_to(&agent, viewer, done)
}

/// Submits the request of a build again, in the name of the caller.
async fn submit_again(
    agent: &Arc<AgentState>,
    caller: &Caller,
    id: BuildPath,
) -> Result<BuildId, ApiError> {
    let Path(id) = id?;
    let build = builds::find(agent, id).await?;
    let request = Request {
        submitter: None,
        ..build.request()
    };
    match builds::submit_request(agent, caller, request, None).await? {
        Submission::Created(Build { id, .. }) | Submission::Existing(Build { id, .. }) => Ok(id),
        Submission::Deleted | Submission::KeyConflict => {
            Err(ApiError::conflict("the build was submitted meanwhile"))
        }
    }
}

pub(super) async fn cancel(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    id: BuildPath,
) -> Response {
    let done = builds::cancel(State(Arc::clone(&agent)), id).await;
    lead_to(&agent, viewer, done.map(|(_, build)| build.id))
}

pub(super) async fn resume(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    id: BuildPath,
) -> Response {
    let done = console::resume(State(Arc::clone(&agent)), id).await;
    lead_to(&agent, viewer, done.map(|(_, build)| build.id))
}

pub(super) async fn release(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    id: BuildPath,
) -> Response {
    let done = console::release(State(Arc::clone(&agent)), id).await;
    lead_to(&agent, viewer, done.map(|(_, build)| build.id))
}
