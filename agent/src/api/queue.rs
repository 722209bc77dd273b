//! The queue as a whole: its state, draining and undraining.

pub(super) mod forecast;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::Json;
use config::builds::Build;
use config::queue::{Drain, Drained, Guest, Queue, WaitingBuild};
use config::{ImageKey, Load, ResourceName};
use jiff::Timestamp;
use planner::{JobId, ResourceRequest, RunningJobs};
use serde::Deserialize;
use sys::blocking::blocking;
use tracing::info;

use super::error::ApiError;
use state::maintenance;
use state::{AgentState, QueueSnapshot};

/// The maximum length of the reason for draining, in bytes.
const REASON_MAX: usize = 1000;

/// The options of a request for the queue.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueQuery {
    /// Adds the forecasts of the waiting builds.
    #[serde(default)]
    forecast: bool,
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    query: Result<Query<QueueQuery>, QueryRejection>,
) -> Result<Json<Queue>, ApiError> {
    let Query(QueueQuery { forecast }) = query?;
    let unfinished = agent.records.unfinished().await?;
    Ok(Json(describe(&agent, &unfinished, forecast).await?))
}

/// Returns the queue with these unfinished builds, and the forecasts if they are wanted.
pub(super) async fn describe(
    agent: &AgentState,
    unfinished: &[Build],
    forecast: bool,
) -> Result<Queue, ApiError> {
    let jobs = agent.jobs.running();
    let snapshot = agent.queue_snapshot();
    let mut queue = queue(agent, &snapshot, &jobs, unfinished);
    if forecast {
        self::forecast::add(agent, &snapshot, unfinished, &mut queue).await?;
    }
    Ok(queue)
}

fn queue(
    agent: &AgentState,
    snapshot: &QueueSnapshot,
    jobs: &RunningJobs,
    unfinished: &[Build],
) -> Queue {
    let records: BTreeMap<_, _> = unfinished.iter().map(|build| (build.id, build)).collect();
    let guest = |job: &JobId, key: &ImageKey, build| {
        guest(snapshot.request(key, jobs.resources_of(job)), key, build)
    };
    let builds = jobs.builds.iter().map(|(id, key)| Guest {
        build: Some(*id),
        ..guest(&JobId::Build(*id), key, records.get(id).copied())
    });
    let images = jobs.images.keys();
    let images = images.map(|key| guest(&JobId::Bootstrap(key.clone()), key, None));
    let debug_sessions = jobs.debug_sessions.iter().map(|(tag, session)| Guest {
        build: Some(tag.build),
        is_debug_copy: true,
        submitter: Some(session.submitter.clone()),
        since: Some(session.since),
        ..guest(&JobId::Copy(*tag), &session.key, None)
    });
    let running: Vec<_> = builds.chain(images).chain(debug_sessions).collect();
    let waiting = unfinished
        .iter()
        .filter(|build| !jobs.builds.contains_key(&build.id));
    let mut waiting: Vec<_> = waiting.map(waiting_build).collect();
    let positions: BTreeMap<_, _> = snapshot.order.iter().zip(0usize..).collect();
    waiting.sort_by_key(|waiting| {
        let position = positions.get(&waiting.build).copied();
        (position.unwrap_or(usize::MAX), waiting.build)
    });
    let capacity = &snapshot.observed.capacity;
    Queue {
        name: agent.settings().name.clone(),
        at: Timestamp::now(),
        drained: agent.drained(),
        guests: Load {
            taken: running.len() as u64,
            total: capacity.guests.map(|total| total as u64),
        },
        cpus: Load {
            taken: running.iter().map(|guest| guest.cpus).sum(),
            total: Some(capacity.cpus),
        },
        memory_mib: Load {
            taken: running.iter().map(|guest| guest.memory_mib).sum(),
            total: Some(capacity.memory),
        },
        resources: loads(snapshot, jobs),
        running,
        waiting,
    }
}

fn guest(request: ResourceRequest, key: &ImageKey, build: Option<&Build>) -> Guest {
    Guest {
        build: None,
        is_debug_copy: false,
        submitter: build.map(|build| build.submitter.clone()),
        target: build.map(|build| build.target.clone()),
        machine: key.machine.clone(),
        toolchain: key.toolchain.clone(),
        state: build.map(|build| build.state),
        since: build.and_then(|build| build.started),
        cpus: request.cpus,
        memory_mib: request.memory,
        resources: request.counts,
    }
}

/// Returns the use of the countable resources by all guests, held ones included.
fn loads(snapshot: &QueueSnapshot, jobs: &RunningJobs) -> BTreeMap<ResourceName, Load> {
    let totals = snapshot.observed.capacity.counts.iter();
    let mut loads: BTreeMap<_, _> = totals
        .map(|(name, total)| {
            let total = Some(*total);
            (name.clone(), Load { taken: 0, total })
        })
        .collect();
    for (job, key) in jobs.guests() {
        let request = snapshot.request(key, jobs.resources_of(&job));
        for (name, count) in request.counts {
            if let Some(load) = loads.get_mut(&name) {
                load.taken += count;
            }
        }
    }
    loads
}

fn waiting_build(build: &Build) -> WaitingBuild {
    WaitingBuild {
        build: build.id,
        submitter: build.submitter.clone(),
        priority: build.priority,
        target: build.target.clone(),
        machine: build.machine.clone(),
        toolchain: build.toolchain.clone(),
        since: build.submitted,
        not_before: build.not_before,
        message: build.message.clone(),
        forecast: None,
    }
}

pub(super) async fn drain(
    State(agent): State<Arc<AgentState>>,
    request: Result<Json<Drain>, JsonRejection>,
) -> Result<Json<Drained>, ApiError> {
    let Json(Drain { reason }) = request?;
    if reason.len() > REASON_MAX || reason.contains(char::is_control) {
        return Err(ApiError::bad_request(format!(
            "a reason is one line of at most {REASON_MAX} bytes"
        )));
    }
    // A second request replaces the reason and keeps the time of the first.
    let since = agent
        .drained()
        .map_or_else(Timestamp::now, |drained| drained.since);
    let drained = Drained { since, reason };
    info!(reason = drained.reason, "host drained");
    // Under the lock, so that no build that was admitted before starts after the response.
    let _queue = agent.queue.lock().await;
    let (task_agent, set) = (Arc::clone(&agent), drained.clone());
    blocking(move || maintenance::set(&task_agent, Some(set))).await?;
    Ok(Json(drained))
}

pub(super) async fn undrain(State(agent): State<Arc<AgentState>>) -> Result<Json<Queue>, ApiError> {
    if agent.drained().is_some() {
        info!("host undrained");
        let task_agent = Arc::clone(&agent);
        blocking(move || maintenance::set(&task_agent, None)).await?;
    }
    show(State(agent), Ok(Query(QueueQuery::default()))).await
}
