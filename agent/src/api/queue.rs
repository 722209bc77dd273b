//! Requests about the queue as a whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Json;
use config::BuildId;
use config::builds::{Build, Submitter};
use config::queue::{Drain, Drained, Guest, Load, Queue, WaitingBuild};
use jiff::Timestamp;
use tracing::info;

use super::problem::Refused;
use crate::blocking;
use crate::jobs::debug_session::Attached;
use crate::scheduler::{ImageKey, QueueSnapshot};
use crate::state::agent_state::AgentState;
use crate::state::guest_tag::CopyTag;
use crate::state::maintenance;

/// The length of a reason.
const REASON_MAX: usize = 1000;

pub(super) async fn show(State(agent): State<Arc<AgentState>>) -> Result<Json<Queue>, Refused> {
    let unfinished = agent.records.unfinished().await?;
    let jobs = agent.with_jobs(|jobs| Jobs {
        builds: jobs
            .builds
            .iter()
            .map(|(id, job)| (*id, job.0.clone()))
            .collect(),
        bootstraps: jobs.bootstraps.keys().cloned().collect(),
        copies: jobs.attached.iter().map(copy).collect(),
    });
    Ok(Json(queue(&agent, &agent.outlook(), &jobs, &unfinished)))
}

/// What runs now.
struct Jobs {
    builds: BTreeMap<BuildId, ImageKey>,
    bootstraps: Vec<ImageKey>,
    copies: Vec<Copy>,
}

/// A copy that somebody looks into.
struct Copy {
    build: BuildId,
    pair: ImageKey,
    by: Submitter,
    since: Timestamp,
}

fn copy((tag, attached): (&CopyTag, &Attached)) -> Copy {
    Copy {
        build: tag.build,
        pair: attached.pair.clone(),
        by: attached.by.clone(),
        since: attached.since,
    }
}

fn queue(agent: &AgentState, outlook: &QueueSnapshot, jobs: &Jobs, unfinished: &[Build]) -> Queue {
    let records: BTreeMap<_, _> = unfinished.iter().map(|build| (build.id, build)).collect();
    let builds = jobs.builds.iter();
    let builds = builds.map(|(id, pair)| Guest {
        build: Some(*id),
        ..guest(outlook, pair, records.get(id).copied())
    });
    let bootstraps = jobs
        .bootstraps
        .iter()
        .map(|pair| guest(outlook, pair, None));
    let copies = jobs.copies.iter().map(|copy| Guest {
        build: Some(copy.build),
        is_debug_copy: true,
        submitter: Some(copy.by.clone()),
        since: Some(copy.since),
        ..guest(outlook, &copy.pair, None)
    });
    let running: Vec<_> = builds.chain(bootstraps).chain(copies).collect();
    let waiting = unfinished
        .iter()
        .filter(|build| !jobs.builds.contains_key(&build.id));
    let mut waiting: Vec<_> = waiting.map(waits).collect();
    let turns: BTreeMap<_, _> = outlook.order.iter().zip(0usize..).collect();
    waiting.sort_by_key(|waits| {
        let turn = turns.get(&waits.build).copied();
        (turn.unwrap_or(usize::MAX), waits.build)
    });
    let capacity = &outlook.capacity;
    Queue {
        name: agent.settings.name.clone(),
        at: Timestamp::now(),
        drained: agent.drained(),
        guests: Load {
            taken: running.len() as u64,
            total: capacity.guests.map(|most| most as u64),
        },
        cpus: Load {
            taken: running.iter().map(|guest| guest.cpus).sum(),
            total: Some(capacity.cpus),
        },
        memory_mib: Load {
            taken: running.iter().map(|guest| guest.memory_mib).sum(),
            total: Some(capacity.memory),
        },
        running,
        waiting,
    }
}

fn guest(outlook: &QueueSnapshot, pair: &ImageKey, build: Option<&Build>) -> Guest {
    let demand = outlook.demands.get(pair).copied().unwrap_or_default();
    Guest {
        build: None,
        is_debug_copy: false,
        submitter: build.map(|build| build.submitter.clone()),
        target: build.map(|build| build.target.clone()),
        machine: pair.machine.clone(),
        toolchain: pair.toolchain.clone(),
        state: build.map(|build| build.state),
        since: build.and_then(|build| build.started),
        cpus: demand.cpus,
        memory_mib: demand.memory,
    }
}

fn waits(build: &Build) -> WaitingBuild {
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
    }
}

pub(super) async fn drain(
    State(agent): State<Arc<AgentState>>,
    request: Result<Json<Drain>, JsonRejection>,
) -> Result<Json<Drained>, Refused> {
    let Json(Drain { reason }) = request?;
    if reason.len() > REASON_MAX || reason.contains(char::is_control) {
        return Err(Refused::bad(format!(
            "a reason is one line of at most {REASON_MAX} bytes"
        )));
    }
    // Who drains a host again may give a better reason; it is drained since the first.
    let since = agent.drained().map_or_else(Timestamp::now, |it| it.since);
    let drained = Drained { since, reason };
    info!(
        reason = drained.reason,
        "the host is drained: no guest starts"
    );
    // Held, so that nothing that was decided before starts after our answer.
    let _queue = agent.queue.lock().await;
    let (task_agent, set) = (Arc::clone(&agent), drained.clone());
    blocking(move || maintenance::set(&task_agent, Some(set))).await?;
    Ok(Json(drained))
}

pub(super) async fn undrain(State(agent): State<Arc<AgentState>>) -> Result<Json<Queue>, Refused> {
    if agent.drained().is_some() {
        info!("the host is no longer drained");
        let task_agent = Arc::clone(&agent);
        blocking(move || maintenance::set(&task_agent, None)).await?;
    }
    show(State(agent)).await
}
