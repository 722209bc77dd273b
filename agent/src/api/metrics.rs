//! The metrics for Prometheus.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use config::builds::Build;
use config::feeds::FeedStatus;
use config::pressure::PressureKind;
use config::settings::Settings;
use config::{ControllerName, MIB};
use jiff::Timestamp;
use planner::Observed;
use planner::pressure::Stall;
use prserv::metrics_format;
use records::Lease;
use sys::blocking::blocking;
use telemetry::metrics::{Admission, HostGauges};

use super::error::ApiError;
use crate::triggers::{feeds, notifications};
use state::AgentState;

/// Returns the metrics, in the format that the header `Accept` prefers.
pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let unfinished = agent.records.unfinished().await?;
    let leases = agent.records.open_leases().await?;
    let rules = notifications::describe(&agent).await?;
    let feeds = feeds::describe(&agent).await?;
    let feeds: Vec<_> = feeds.iter().map(packages_of).collect();
    let notified: Vec<_> = rules
        .iter()
        .map(|it| (it.name.to_string(), it.waiting as usize))
        .collect();
    let texts = blocking(move || texts(&agent, &unfinished, &leases, &notified, &feeds)).await;
    Ok(metrics_format::respond(&headers, &texts))
}

/// Returns the name of a feed, the builds that wait for their publication, and its packages.
fn packages_of(feed: &FeedStatus) -> (String, usize, usize) {
    let packages = feed.repositories.iter().map(|it| it.debs + it.ipks).sum();
    (feed.name.to_string(), feed.waiting as usize, packages)
}

/// Returns the metrics of the agent and its services.
fn texts(
    agent: &AgentState,
    unfinished: &[Build],
    leases: &[(Lease, Build)],
    notifications: &[(String, usize)],
    feeds: &[(String, usize, usize)],
) -> Vec<String> {
    let (status, queue) = (agent.status(), agent.queue_snapshot());
    let jobs = agent.jobs.running();
    let held = jobs.holds.values().filter(|hold| hold.has_guest).count();
    let mut guests = jobs.counts().to_vec();
    guests.extend([("hold", held), ("ready", agent.ready.images().len())]);
    let mut texts = agent.telemetry.metrics.to_texts(&HostGauges {
        now: Timestamp::now(),
        unfinished,
        guests: &guests,
        drained: agent.drained().is_some(),
        notices: &queue.observed.notice_counts(),
        admission: status.is_some().then(|| admission(&queue.observed)),
        status: status.as_ref(),
        free: &free_space(agent),
        hot_memory: agent.hot_images.bytes(),
        pressure: &host_pressure(agent),
        reports: &reports(&agent.settings(), leases),
        notifications,
        feeds,
    });
    texts.extend(agent.bitbake.metrics());
    texts
}

/// Returns the resources that admission hands out.
fn admission(observed: &Observed) -> Admission {
    let pool = observed.pool();
    let capacity = pool.capacity();
    let (cpus_allocated, memory_allocated) = pool.allocated_amounts();
    Admission {
        cpus_allocated,
        cpus: capacity.cpus,
        memory_allocated: memory_allocated.saturating_mul(MIB),
        memory: capacity.memory.saturating_mul(MIB),
        slots_allocated: pool.allocations().len() as u64,
        slots: capacity.guests.map(|most| most as u64),
    }
}

/// Returns the number of results that each controller has to be sent.
fn reports(settings: &Settings, leases: &[(Lease, Build)]) -> Vec<(String, usize)> {
    let rules = settings.controllers.iter();
    let waiting = |name: &ControllerName| {
        let of_it = leases
            .iter()
            .filter(|(lease, build)| lease.controller == *name && build.outcome.is_some());
        of_it.count()
    };
    rules
        .map(|rules| (rules.name.to_string(), waiting(&rules.name)))
        .collect()
}

/// Returns the free bytes of the volumes and of the state directory.
fn free_space(agent: &AgentState) -> Vec<(&'static str, PathBuf, Option<u64>)> {
    let volumes = agent.volumes.iter().map(|volume| ("volume", volume.path()));
    volumes
        .chain([("state", agent.paths.state())])
        .map(|(kind, path)| (kind, path.to_owned(), store::space::bytes_free(path).ok()))
        .collect()
}

/// Returns the pressure on each resource of the host that the kernel reports.
fn host_pressure(agent: &AgentState) -> Vec<(&'static str, &'static str, u32)> {
    let readings = crate::scheduler::pressure::read(&agent.settings().paths.pressure);
    let shares = |(kind, stall): (PressureKind, Stall)| {
        let name = kind.file();
        [(name, "some", stall.some), (name, "full", stall.full)]
    };
    readings.into_iter().flat_map(shares).collect()
}
