//! Toaster's monitoring API, for the dashboards that read it: the same routes, types
//! and texts, made from our own records. Everybody may look; nobody may change.

mod finished;
mod python;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use config::BuildId;
use config::builds::Build;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tracing::error;

use crate::records::RecordsError;
use crate::state::AgentState;
pub use finished::Finished;

/// How many builds with an outcome are among the most recent ones.
const RECENT: u32 = 3;

const HEALTH: &str = "<!DOCTYPE html>
<html lang=\"en\">
   <head><title>Toaster Health</title></head>
   <body>Ok</body>
</html>";

/// The routes.
pub(crate) fn routes() -> Router<Arc<AgentState>> {
    Router::new()
        .route("/health", only(get(health)))
        .route("/toastergui/api/builds", only(get(builds)))
        .route("/toastergui/api/building", only(get(building)))
        .route("/toastergui/api/build/{id}", only(get(build)))
        .route("/toastergui/mostrecentbuilds", only(get(recent)))
}

/// Toaster refuses whatever could change something.
fn only(looking: MethodRouter<Arc<AgentState>>) -> MethodRouter<Arc<AgentState>> {
    looking.fallback(async || page(StatusCode::FORBIDDEN, "Forbidden"))
}

/// What a path gets that is not there, also one of ours with a slash at its end.
pub(crate) fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, "Not Found")
}

fn page(status: StatusCode, words: &str) -> Response {
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n   <head><title>{words}</title></head>\n   <body>{words}</body>\n</html>\n"
    );
    html(status, body)
}

fn html(status: StatusCode, body: impl Into<Body>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (status, kind, body.into()).into_response()
}

async fn health() -> Response {
    html(StatusCode::OK, HEALTH)
}

/// An answer in JSON, or that there is none.
type Answer = Result<Json, Unreadable>;

struct Json(Bytes);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// The records cannot be read.
struct Unreadable;

impl From<RecordsError> for Unreadable {
    fn from(fault: RecordsError) -> Self {
        error!("a request failed: {}", sys::error_report::chain(&fault));
        Self
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        page(StatusCode::INTERNAL_SERVER_ERROR, "Server Error")
    }
}

fn json(value: &impl Serialize) -> Json {
    Json(python::to_json(value).into())
}

async fn builds(State(agent): State<Arc<AgentState>>) -> Answer {
    Ok(Json(agent.finished.body(&agent).await?))
}

#[derive(Serialize)]
struct AllBuilding {
    building: Vec<view::Building>,
    count: usize,
}

async fn building(State(agent): State<Arc<AgentState>>) -> Answer {
    let now = Timestamp::now();
    let unfinished = newest_first(agent.records.unfinished().await?);
    let building = unfinished.iter().map(|build| view::building(build, now));
    let building: Vec<_> = building.collect();
    let count = building.len();
    Ok(json(&AllBuilding { building, count }))
}

#[derive(Serialize)]
struct OneBuild {
    build: Option<view::Either>,
}

async fn build(State(agent): State<Arc<AgentState>>, Path(id): Path<String>) -> Response {
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return not_found();
    }
    // A number that is too great for us is one that is unknown, too.
    let id = id.parse().ok().map(BuildId);
    single(&agent, id).await.into_response()
}

async fn single(agent: &AgentState, id: Option<BuildId>) -> Answer {
    let build = match id {
        Some(id) => agent.records.get(id).await?,
        None => None,
    };
    let now = Timestamp::now();
    let build = build.map(|build| {
        let log = agent.paths.build_log(build.id);
        view::single(&build, now, &log)
    });
    Ok(json(&OneBuild { build }))
}

async fn recent(State(agent): State<Arc<AgentState>>) -> Answer {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let unfinished = newest_first(agent.records.unfinished().await?);
    let finished = agent.records.last_finished(RECENT).await?;
    let recent = unfinished.iter().chain(&finished).map(|build| {
        let cancelling = agent.jobs.with(|jobs| {
            let job = jobs.builds.get(&build.id);
            job.is_some_and(|job| job.cancel.is_cancelled())
        });
        view::recent(build, cancelling, now, &zone)
    });
    Ok(json(&recent.collect::<Vec<_>>()))
}

fn newest_first(mut builds: Vec<Build>) -> Vec<Build> {
    builds.sort_by_key(|build| std::cmp::Reverse((view::started(build), build.id)));
    builds
}
