//! Toaster's monitoring API for existing dashboards: the same routes, types and texts, from the
//! records of this host. The routes are public and read-only.

mod finished;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use config::builds::{ListQuery, Sort};
use config::{BuildId, ProjectName};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use records::RecordsError;
use serde::Deserialize;
use sys::blocking::blocking;
use toaster::answer::{Json, failed, health, read_only};
use toaster::{Building, Facts, OneBuild, recent as recent_build, with_log};
use tracing::{error, warn};

use finished::FinishedBuilds;
use state::AgentState;

/// The number of finished builds in the list of recent builds.
const RECENT: u32 = 3;

/// The beginning of the paths of the API.
const API: &str = "/api/v1";

/// The state of these routes.
struct Toaster {
    agent: Arc<AgentState>,
    finished: FinishedBuilds,
}

/// Returns the routes. They share one cache of finished builds.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(agent: &Arc<AgentState>) -> Router<S> {
    let toaster = Toaster {
        agent: Arc::clone(agent),
        finished: FinishedBuilds::default(),
    };
    Router::new()
        .route("/health", read_only(get(async || health())))
        .route("/toastergui/api/builds", read_only(get(builds)))
        .route("/toastergui/api/building", read_only(get(building)))
        .route("/toastergui/api/build/{id}", read_only(get(build)))
        .route("/toastergui/mostrecentbuilds", read_only(get(recent)))
        .with_state(Arc::new(toaster))
}

pub(super) use toaster::answer::not_found;

/// A response in JSON, or an error page.
type JsonResponse = Result<Json, RecordsUnreadable>;

/// The error that the records cannot be read; its cause is in the log.
struct RecordsUnreadable;

impl From<RecordsError> for RecordsUnreadable {
    fn from(error: RecordsError) -> Self {
        let error = &error as &dyn std::error::Error;
        error!(error, "request failed");
        Self
    }
}

impl IntoResponse for RecordsUnreadable {
    fn into_response(self) -> Response {
        failed()
    }
}

async fn builds(State(toaster): State<Arc<Toaster>>) -> JsonResponse {
    Ok(Json(toaster.finished.body(&toaster.agent).await?))
}

async fn building(State(toaster): State<Arc<Toaster>>) -> JsonResponse {
    let unfinished = newest_first(toaster.agent.records.unfinished().await?);
    let facts: Vec<_> = unfinished.iter().map(Facts::from).collect();
    Ok(Json::of(&Building::new(&facts, Timestamp::now())))
}

async fn build(State(toaster): State<Arc<Toaster>>, Path(id): Path<String>) -> Response {
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return not_found();
    }
    // A number that is out of range belongs to no build, too.
    let id = id.parse().ok().map(BuildId);
    one_build(&toaster.agent, id).await.into_response()
}

async fn one_build(agent: &Arc<AgentState>, id: Option<BuildId>) -> JsonResponse {
    let found = match id {
        Some(id) => agent.records.get(id).await?,
        None => None,
    };
    let Some(found) = found else {
        return Ok(Json::of(&OneBuild { build: None }));
    };
    let (task_agent, id) = (Arc::clone(agent), found.id);
    let log = blocking(move || task_agent.paths.build_log(id)).await;
    let log = log.display().to_string();
    let build = Some(with_log(&(&found).into(), Timestamp::now(), log));
    Ok(Json::of(&OneBuild { build }))
}

/// The query of the most recent builds.
#[derive(Deserialize)]
struct RecentQuery {
    /// The number of a project. Toaster ignores one that does not exist.
    project_id: Option<String>,
}

async fn recent(
    State(toaster): State<Arc<Toaster>>,
    Query(query): Query<RecentQuery>,
) -> JsonResponse {
    let agent = &toaster.agent;
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let project = project_with_id(agent, query.project_id).await;
    let mut unfinished = newest_first(agent.records.unfinished().await?);
    unfinished.retain(|build| project.is_none() || build.project == project);
    let last_finished = ListQuery {
        project,
        sort: Sort::Finished,
        count: Some(RECENT),
        ..ListQuery::default()
    };
    let finished = agent.records.list(last_finished).await?;
    let recent = unfinished.iter().chain(&finished).map(|build| {
        let is_cancelling = agent.jobs.with(|jobs| {
            let job = jobs.builds.get(&build.id);
            job.is_some_and(|job| job.cancel.is_cancelled())
        });
        recent_build((&build.into(), API), is_cancelling, now, &zone)
    });
    Ok(Json::of(&recent.collect::<Vec<_>>()))
}

/// Returns the project with a number. A catalog that cannot be read has none: the list of builds is
/// more important.
async fn project_with_id(agent: &Arc<AgentState>, id: Option<String>) -> Option<ProjectName> {
    let id = id?.parse().ok()?;
    let task_agent = Arc::clone(agent);
    let found = blocking(move || task_agent.catalog.project_with_id(id)).await;
    found.unwrap_or_else(|error| {
        let error = &error as &dyn std::error::Error;
        warn!(error, "cannot read the numbers of projects");
        None
    })
}

fn newest_first(mut builds: Vec<config::builds::Build>) -> Vec<config::builds::Build> {
    builds.sort_by_key(|build| {
        let start = build.started.unwrap_or(build.submitted);
        std::cmp::Reverse((start, build.id))
    });
    builds
}
