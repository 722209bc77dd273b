//! The overview.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::builds::Build;
use web::{Overview, RunningBuild, Section, Viewer};

use super::super::error::ApiError;
use super::super::queue;
use super::answer::{error_page, page};
use super::{REFRESH_SECONDS, frame};
use state::AgentState;

/// The number of builds in the list of those that finished last.
const FINISHED: u32 = 12;
/// The number of failing packages.
const FAILING: usize = 20;

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let shown = overview(&agent, viewer.clone()).await;
    let answer = shown.and_then(|overview| page(&headers, &overview));
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn overview(agent: &AgentState, viewer: Viewer) -> Result<Overview, ApiError> {
    let unfinished = agent.records.unfinished().await?;
    let queue = queue::describe(agent, &unfinished, true).await?;
    let records: BTreeMap<_, _> = unfinished.iter().map(|build| (build.id, build)).collect();
    let builds: Vec<&Build> = queue
        .running
        .iter()
        .filter_map(|guest| records.get(&guest.build?).copied())
        .collect();
    let expected = queue::forecast::expected(agent, &builds, queue.at).await?;
    let running = queue.running.iter().map(|guest| {
        let build = guest.build.filter(|_| !guest.is_debug_copy);
        let record = build.and_then(|id| records.get(&id));
        let expected = build.and_then(|id| expected.get(&id));
        RunningBuild {
            guest: guest.clone(),
            progress: record.map(|build| build.progress).unwrap_or_default(),
            expected_seconds: expected.map(std::time::Duration::as_secs),
        }
    });
    let mut frame = frame(agent, viewer, Section::Overview, "Overview");
    frame.refresh_seconds = Some(REFRESH_SECONDS);
    Ok(Overview {
        frame,
        running: running.collect(),
        failing: agent.records.failing(FAILING).await?,
        finished: agent.records.last_finished(FINISHED).await?,
        status: agent.status(),
        queue,
    })
}
