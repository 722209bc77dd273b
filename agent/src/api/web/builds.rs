//! The list of builds, and the page of one.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::BuildId;
use config::builds::{Build, ListQuery, PROVENANCE, SIGNED_PROVENANCE, State as BuildState};
use jiff::Timestamp;
use sys::blocking::blocking;
use web::{BuildPage, Builds, Filter, RunningBuild, Section, Viewer};

use super::super::builds::{add_jobs, find};
use super::super::error::ApiError;
use super::super::queue;
use super::answer::{error_page, page};
use super::log::{self, LogQuery};
use super::log_file::LogFiles;
use super::{REFRESH_SECONDS, frame};
use state::AgentState;
use state::paths::attempts;

/// The number of builds in the history of a package.
const HISTORY: u32 = 30;

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let filter = Filter::parse(&query.unwrap_or_default());
    let shown = builds(&agent, viewer.clone(), filter).await;
    let answer = shown.and_then(|builds| page(&headers, &builds));
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn builds(agent: &AgentState, viewer: Viewer, filter: Filter) -> Result<Builds, ApiError> {
    let now = Timestamp::now();
    let query = filter.query(now).map_err(ApiError::bad_request)?;
    let mut builds = agent.records.list(query.clone()).await?;
    add_jobs(agent, &mut builds);
    let status = agent.status();
    let machines = status.iter().flat_map(|status| &status.machines);
    let mut machines: Vec<_> = machines.map(|it| it.machine.to_string()).collect();
    machines.dedup();
    let mut frame = frame(agent, viewer, Section::Builds, "Builds");
    let changes = builds.iter().any(|build| build.outcome.is_none());
    frame.refresh_seconds = changes.then_some(REFRESH_SECONDS);
    Ok(Builds {
        frame,
        filter,
        machines,
        next: query.next(&builds),
        builds,
        now,
    })
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    Extension(logs): Extension<Arc<LogFiles>>,
    id: Result<Path<BuildId>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let Path(id) = id?;
        let build = find(&agent, id).await?;
        page(
            &headers,
            &build_page(&agent, &logs, viewer.clone(), build).await?,
        )
    };
    let shown = shown.await;
    shown.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn build_page(
    agent: &Arc<AgentState>,
    logs: &Arc<LogFiles>,
    viewer: Viewer,
    mut build: Build,
) -> Result<BuildPage, ApiError> {
    add_jobs(agent, std::slice::from_mut(&mut build));
    let log = log::open(agent, logs, &build, LogQuery::default()).await?;
    let directory = agent.paths.build(build.id);
    let (earlier_logs, has_provenance, has_signed_provenance) = blocking(move || {
        let has = |name| directory.join(name).exists();
        let earlier = attempts(&directory).unwrap_or_default();
        (earlier, has(PROVENANCE), has(SIGNED_PROVENANCE))
    })
    .await;
    build.earlier_logs = earlier_logs;
    let (waiting, running) = in_queue(agent, &build).await?;
    let title = format!("Build {}: {}", build.id, build.target);
    let mut frame = frame(agent, viewer, Section::Builds, title);
    frame.refresh_seconds = build.outcome.is_none().then_some(REFRESH_SECONDS);
    Ok(BuildPage {
        frame,
        history: history(agent, &build).await?,
        waiting,
        running,
        log: log.view,
        has_provenance,
        has_signed_provenance,
        now: Timestamp::now(),
        build,
    })
}

/// Returns the latest builds of the package of a build on its machine, newest first.
async fn history(agent: &AgentState, build: &Build) -> Result<Vec<Build>, ApiError> {
    let query = ListQuery {
        machine: Some(build.machine.clone()),
        package: build.target.names().next().map(str::to_owned),
        count: Some(HISTORY),
        ..ListQuery::default()
    };
    let mut builds = agent.records.list(query).await?;
    builds.retain(|it| it.target == build.target);
    Ok(builds)
}

/// Returns the place of a build in the queue, and its guest.
async fn in_queue(
    agent: &AgentState,
    build: &Build,
) -> Result<(Option<config::queue::WaitingBuild>, Option<RunningBuild>), ApiError> {
    if build.state == BuildState::Finished {
        return Ok((None, None));
    }
    let unfinished = agent.records.unfinished().await?;
    let queue = queue::describe(agent, &unfinished, build.state == BuildState::Queued).await?;
    let waiting = queue.waiting.into_iter().find(|it| it.build == build.id);
    let is_own =
        |guest: &config::queue::Guest| guest.build == Some(build.id) && !guest.is_debug_copy;
    let guest = queue.running.into_iter().find(is_own);
    let Some(guest) = guest else {
        return Ok((waiting, None));
    };
    let expected = queue::forecast::expected(agent, &[build], queue.at).await?;
    let running = RunningBuild {
        guest,
        progress: build.progress,
        expected_seconds: expected.get(&build.id).map(std::time::Duration::as_secs),
    };
    Ok((waiting, Some(running)))
}
