//! Toaster's monitoring API for existing dashboards, from the builds of the farm. The routes are public and
//! read-only, as on a host. So lists are shared by all who ask within a second, and are read one at a time.

mod answers;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use ::toaster::answer::{Json, failed, health, not_found, read_only};
use ::toaster::{
    Building, Facts, FinishedList, OneBuild, finished, recent as recent_build, with_log,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use config::BuildId;
use config::builds::{Progress, State as HostState, Target};
use farm_core::view::{BuildQuery, BuildState, BuildView, LISTED_MAX};
use farm_store::{Store, StoreError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use tracing::warn;

use super::Service;
use answers::Answers;

/// The number of finished builds in the list of recent builds.
const RECENT: u32 = 3;
/// The beginning of the paths of the interface.
const API: &str = "/farm/v1";

/// The state of these routes.
struct Toaster {
    service: Arc<Service>,
    answers: Answers,
}

impl Toaster {
    fn store(&self) -> &Store {
        self.service.coordinator.store()
    }
}

/// Returns the routes. They share the answers that were given last.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(service: &Arc<Service>) -> Router<S> {
    let toaster = Toaster {
        service: Arc::clone(service),
        answers: Answers::default(),
    };
    Router::new()
        .route("/health", read_only(get(async || health())))
        .route("/toastergui/api/builds", read_only(get(builds)))
        .route("/toastergui/api/building", read_only(get(building)))
        .route("/toastergui/api/build/{id}", read_only(get(build)))
        .route("/toastergui/mostrecentbuilds", read_only(get(recent)))
        .with_state(Arc::new(toaster))
}

/// A response in JSON, or an error page.
type JsonResponse = Result<Json, Unreadable>;

/// The error that the database cannot be read; its cause is in the log.
struct Unreadable;

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        let error = &error as &dyn std::error::Error;
        warn!(error, "cannot read builds for a client of Toaster");
        Self
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        failed()
    }
}

/// The page of a list. Toaster has one page with all builds, which a farm cannot have.
#[derive(Debug, Deserialize)]
struct Page {
    before: Option<BuildId>,
    count: Option<u32>,
}

async fn builds(State(toaster): State<Arc<Toaster>>, Query(page): Query<Page>) -> JsonResponse {
    let question = format!("builds {:?} {:?}", page.before, page.count);
    let read = list(toaster.store(), &page);
    toaster.answers.get(Instant::now(), question, read).await
}

async fn list(store: &Store, page: &Page) -> JsonResponse {
    let query = BuildQuery {
        state: Some(BuildState::Finished),
        before: page.before,
        count: Some(page.count.unwrap_or(LISTED_MAX)),
        ..BuildQuery::default()
    };
    let found = newest_first(&store.builds(&query).await?.builds);
    let builds = found
        .iter()
        .filter_map(|build| Some(finished(build, build.outcome?)));
    Ok(Json::of(&FinishedList::new(builds.collect())))
}

async fn building(State(toaster): State<Arc<Toaster>>) -> JsonResponse {
    let read = async {
        let builds = newest_first(&unfinished(toaster.store()).await?);
        Ok(Json::of(&Building::new(&builds, Timestamp::now())))
    };
    let question = "building".to_owned();
    toaster.answers.get(Instant::now(), question, read).await
}

async fn build(State(toaster): State<Arc<Toaster>>, Path(id): Path<String>) -> Response {
    if !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return not_found();
    }
    // A number that is out of range belongs to no build, too.
    let id = id.parse::<i64>().ok().map(|id| BuildId(id.unsigned_abs()));
    one_build(toaster.store(), id).await.into_response()
}

async fn one_build(store: &Store, id: Option<BuildId>) -> JsonResponse {
    let found = match id {
        Some(id) => store.build(id).await?,
        None => None,
    };
    let build = found.map(|build| {
        let log = format!("{API}/builds/{}/log", build.build);
        with_log(&facts(&build), Timestamp::now(), log)
    });
    Ok(Json::of(&OneBuild { build }))
}

async fn recent(State(toaster): State<Arc<Toaster>>) -> JsonResponse {
    let read = recent_builds(toaster.store());
    let question = "recent".to_owned();
    toaster.answers.get(Instant::now(), question, read).await
}

async fn recent_builds(store: &Store) -> JsonResponse {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let last = BuildQuery {
        state: Some(BuildState::Finished),
        count: Some(RECENT),
        ..BuildQuery::default()
    };
    let mut builds = unfinished(store).await?;
    builds.sort_by_key(|build| {
        let start = build.claimed.unwrap_or(build.submitted);
        Reverse((start, build.build))
    });
    builds.extend(store.builds(&last).await?.builds);
    let recent = builds.iter().map(|build| {
        let is_cancelling = build.canceled && build.outcome.is_none();
        recent_build((&facts(build), API), is_cancelling, now, &zone)
    });
    Ok(Json::of(&recent.collect::<Vec<_>>()))
}

/// Returns the newest builds without an outcome.
async fn unfinished(store: &Store) -> Result<Vec<BuildView>, StoreError> {
    let mut all = Vec::new();
    for state in [BuildState::Running, BuildState::Queued] {
        let query = BuildQuery {
            state: Some(state),
            count: Some(LISTED_MAX),
            ..BuildQuery::default()
        };
        all.extend(store.builds(&query).await?.builds);
    }
    // A build may have got a host between both.
    all.sort_by_key(|build| Reverse(build.build));
    all.dedup_by_key(|build| build.build);
    Ok(all)
}

/// Returns the facts about builds, the latest start first.
fn newest_first(builds: &[BuildView]) -> Vec<Facts> {
    let mut all: Vec<_> = builds.iter().map(facts).collect();
    all.sort_by_key(|build| Reverse((build.start(), build.id)));
    all
}

/// Returns the facts about a build. Hosts report no progress to the farm, and a lease counts as the start.
fn facts(build: &BuildView) -> Facts {
    let is_claimed = build.state != BuildState::Queued;
    let claimed = build.claimed.filter(|_| is_claimed);
    Facts {
        id: build.build,
        machine: build.requirements.machine.clone(),
        toolchain: build.requirements.toolchain.clone(),
        target: build
            .subject
            .target
            .clone()
            .unwrap_or_else(|| Target::from_sources(&[])),
        project: build.subject.project.clone(),
        submitter: build.submitter.to_string(),
        state: match build.state {
            BuildState::Queued => HostState::Queued,
            BuildState::Running => HostState::Running,
            BuildState::Finished => HostState::Finished,
        },
        outcome: build.outcome,
        submitted: build.submitted,
        started: claimed,
        contacted: claimed,
        finished: build.finished,
        sources: 1,
        progress: Progress::default(),
    }
}
