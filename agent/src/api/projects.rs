//! Projects, and builds of them.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use config::ProjectName;
use config::layers::Reference;
use config::projects::{CommitRange, NewProject, Project, ProjectBuild, SubmittedProject};
use config::tokens::Scope;
use jiff::Timestamp;
use sys::blocking::blocking;
use tracing::info;
use yocto::{CatalogError, PrepareError, project};

use super::auth::Caller;
use super::error::ApiError;
use super::releases::status;
use crate::triggers::projects;
use crate::triggers::submission::Submission;
use state::AgentState;

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<Project>>, ApiError> {
    let catalog = agent.catalog.clone();
    Ok(Json(blocking(move || catalog.projects()).await?))
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ProjectName>, PathRejection>,
) -> Result<Json<Project>, ApiError> {
    let Path(name) = name?;
    Ok(Json(find(&agent, name).await?))
}

/// Adds a project, or replaces one.
pub(super) async fn put(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ProjectName>, PathRejection>,
    new: Result<Json<NewProject>, JsonRejection>,
) -> Result<(StatusCode, Json<Project>), ApiError> {
    let (Path(name), Json(mut new)) = (name?, new?);
    let owner = match find_owner(&agent, &name).await? {
        Some(owner) if new.replace => {
            check_owner(&caller, &name, &owner)?;
            owner
        }
        _ => caller.submitter.clone(),
    };
    let agent = Arc::clone(&agent);
    let (is_new, project) = blocking(move || {
        let replace = new.replace;
        let catalog = &agent.catalog;
        let settings = catalog.settings()?;
        if let Some(default) = project::default_release(&new, &settings) {
            new.release = Some(default);
        }
        let release = new.release.as_ref().map(|name| catalog.release(name));
        let release = release.transpose()?;
        let now = Timestamp::now();
        let project = project::complete(name, new, release.as_ref(), &settings, owner, now)?;
        for layer in &project.layers {
            layer
                .url
                .as_ref()
                .map_or(Ok(()), |url| agent.mirrors.check(url))?;
        }
        let bitbake = project.bitbake.as_ref();
        bitbake.map_or(Ok(()), |place| agent.mirrors.check(&place.url))?;
        let is_new = catalog.put_project(&project, replace)?;
        let project = catalog.project(&project.name)?;
        Ok::<_, PrepareError>((is_new, project))
    })
    .await?;
    info!(project = %project.name, by = %caller.submitter, is_new, "stored a project");
    Ok((status(is_new), Json(project)))
}

pub(super) async fn remove(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ProjectName>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = name?;
    let project = find(&agent, name.clone()).await?;
    check_owner(&caller, &name, &project.owner)?;
    let (catalog, removed) = (agent.catalog.clone(), name.clone());
    blocking(move || catalog.remove_project(&removed)).await?;
    info!(project = %name, by = %caller.submitter, "removed a project");
    Ok(StatusCode::NO_CONTENT)
}

/// Resolves a project and submits its build.
pub(super) async fn build(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ProjectName>, PathRejection>,
    request: Result<Json<ProjectBuild>, JsonRejection>,
) -> Result<(StatusCode, Json<SubmittedProject>), ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let project = find(&agent, name).await?;
    if agent.stopping.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let submitter = caller.submitter;
    let (document, submission) = projects::build(&agent, project, request, submitter).await?;
    let (status, build) = match submission {
        None => (StatusCode::OK, None),
        Some(Submission::Created(build)) => (StatusCode::CREATED, Some(build)),
        Some(Submission::Existing(build)) => (StatusCode::OK, Some(build)),
        // Only requests with an idempotency key have these answers.
        Some(Submission::Deleted | Submission::KeyConflict) => {
            return Err(ApiError::conflict("the build was deleted meanwhile"));
        }
    };
    Ok((status, Json(SubmittedProject { document, build })))
}

/// Returns the commits of a layer's repository between two.
pub(super) async fn commits(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ProjectName>, PathRejection>,
    range: Result<Json<CommitRange>, JsonRejection>,
) -> Result<Json<Vec<Reference>>, ApiError> {
    let (Path(name), Json(range)) = (name?, range?);
    let project = find(&agent, name).await?;
    let (catalog, mirrors) = (agent.catalog.clone(), agent.mirrors.clone());
    let found = blocking(move || yocto::commits(&catalog, &mirrors, &project, &range));
    Ok(Json(found.await?))
}

async fn find(agent: &AgentState, name: ProjectName) -> Result<Project, ApiError> {
    let catalog = agent.catalog.clone();
    Ok(blocking(move || catalog.project(&name)).await?)
}

async fn find_owner(
    agent: &AgentState,
    name: &ProjectName,
) -> Result<Option<config::builds::Submitter>, ApiError> {
    let (catalog, name) = (agent.catalog.clone(), name.clone());
    match blocking(move || catalog.project(&name)).await {
        Ok(project) => Ok(Some(project.owner)),
        Err(CatalogError::NoProject(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Checks that a caller may change a project.
fn check_owner(
    caller: &Caller,
    name: &ProjectName,
    owner: &config::builds::Submitter,
) -> Result<(), ApiError> {
    if caller.scope == Scope::Admin || caller.submitter == *owner {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "the project {name} belongs to {owner}; add one of your own"
    )))
}
