//! Observation: everything that a plan depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use config::builds::Build;
use config::canary::TrialBuild;
use config::layout::Entry;
use config::machine::Role;
use config::settings::Machines;
use config::task::Digest;
use config::{BuildId, ImageKey, MachineName, ToolchainName};
use jiff::Timestamp;
use planner::admission::{Rules, Shares};
use planner::plan::{BootstrapFailure, DependencyState, Observed, QueuedBuild, RunningBuild};
use planner::{ResourceRequest, StartMode};
use records::RecordsError;
use store::prune::PrunePolicy;
use store::{Located, StoreError, VolumeId};
use sys::blocking::blocking;
use tracing::warn;

use super::{capacity, pressure};
use state::{AgentState, ImageFacts};

/// The reason for which an observation failed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The machines or the toolchains.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Observes everything that a plan depends on. The jobs are noted first: one that ends
/// meanwhile is still accounted for, and only the scheduler starts new ones.
pub(crate) async fn observe(
    agent: &Arc<AgentState>,
    bootstrap_failures: BTreeMap<ImageKey, BootstrapFailure>,
) -> Result<Observed, ObserveError> {
    let jobs = agent.jobs.running();
    let ready = agent.ready.images();
    let now = Timestamp::now();
    let (running, waiting): (Vec<_>, Vec<_>) = agent
        .records
        .unfinished()
        .await?
        .into_iter()
        .partition(|build| jobs.builds.contains_key(&build.id));
    // A guarded build does not start before its lease is confirmed.
    let may_start =
        |build: &Build| !build.is_guarded() || agent.lease_deadlines.get(build.id).is_some();
    let waiting = waiting.into_iter().filter(may_start);
    let queue: Vec<_> = waiting.map(QueuedBuild::from).collect();
    let dependencies = dependencies(agent, &queue).await?;
    let newest_build = agent.records.newest_id().await?;
    let task_agent = Arc::clone(agent);
    let (disks, capacity, pressure) = blocking(move || {
        let disks = Disks::observe(&task_agent)?;
        let capacity = capacity::capacity(&task_agent.settings(), &disks.free);
        let pressure = pressure::read(&task_agent.settings().paths.pressure);
        Ok::<_, StoreError>((disks, capacity, pressure))
    })
    .await?;
    let trial_builds = trial_builds(agent, &disks.machines).await?;
    let settings = &agent.settings();
    Ok(Observed {
        trial_builds,
        machines: disks.machines,
        toolchains: disks.toolchains,
        unusable_toolchains: disks.unusable_toolchains,
        queue,
        jobs,
        now,
        running: running
            .into_iter()
            .map(|build| (build.id, RunningBuild::new(build, now)))
            .collect(),
        dependencies,
        drained: agent.drained(),
        capacity,
        pressure,
        requests: disks.requests,
        auxiliaries: disks.auxiliaries,
        shares: Shares::default(),
        rules: Rules {
            aging: settings.builds.priority_aging,
            backfill: settings.builds.backfill_limit,
        },
        bootstrap_failures,
        start_modes: disks.start_modes,
        hot_images: agent
            .hot_images
            .wanted(Instant::now(), settings.guests.ready_max),
        ready,
        newest_build,
        halt: disks.halt,
        halted_volumes: disks.halted_volumes,
        retention: retention(&settings.machines),
        free: disks.free,
        retries_max: settings.bootstrap.retries_max,
        held_max: settings.builds.held_max,
    })
}

/// Returns the states of the builds that queued ones depend on.
async fn dependencies(
    agent: &AgentState,
    queue: &[QueuedBuild],
) -> Result<BTreeMap<BuildId, DependencyState>, RecordsError> {
    let ids: BTreeSet<_> = queue
        .iter()
        .flat_map(|it| it.after.iter().copied())
        .collect();
    let mut states = BTreeMap::new();
    for id in ids {
        let state = match agent.records.get(id).await? {
            Some(build) if build.outcome.is_none() => DependencyState::Pending,
            Some(build) if build.succeeded() => DependencyState::Succeeded,
            Some(_) | None => DependencyState::Failed,
        };
        states.insert(id, state);
    }
    Ok(states)
}

/// Returns the builds that have run on the revisions on trial.
async fn trial_builds(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, Located>,
) -> Result<BTreeMap<MachineName, Vec<TrialBuild>>, RecordsError> {
    let mut builds = BTreeMap::new();
    for (machine, state) in machines {
        let Some((_, trial)) = state.view.candidate() else {
            continue;
        };
        let of_trial = agent.records.of_trial(machine, trial.since).await?;
        let of_trial = of_trial.into_iter().filter_map(TrialBuild::new);
        builds.insert(machine.clone(), of_trial.collect());
    }
    Ok(builds)
}

/// The part of an observation that the disks tell.
struct Disks {
    machines: BTreeMap<MachineName, Located>,
    toolchains: BTreeMap<ToolchainName, Digest>,
    unusable_toolchains: BTreeMap<ToolchainName, String>,
    requests: BTreeMap<ImageKey, ResourceRequest>,
    auxiliaries: BTreeSet<ImageKey>,
    start_modes: BTreeMap<ImageKey, StartMode>,
    free: BTreeMap<VolumeId, u64>,
    halt: Option<String>,
    halted_volumes: BTreeMap<VolumeId, String>,
}

impl Disks {
    fn observe(agent: &AgentState) -> Result<Self, StoreError> {
        let machines = machines(agent)?;
        let (toolchains, unusable_toolchains) = toolchains(agent)?;
        drop_stale_facts(agent, &machines);
        let mut disks = Self {
            requests: requests(agent, &machines, &toolchains),
            auxiliaries: auxiliaries(agent, &machines, &toolchains),
            start_modes: start_modes(agent, &machines),
            machines,
            toolchains,
            unusable_toolchains,
            free: BTreeMap::new(),
            halt: None,
            halted_volumes: BTreeMap::new(),
        };
        let paths = &agent.settings().paths;
        disks.halt = short_of(&paths.state, paths.reserve_bytes, "delete builds")?;
        for (volume, store) in agent.volumes.indexed() {
            disks.free.insert(volume, store.free()?);
            let remedy = "delete machines, or prune their revisions";
            if let Some(reason) = short_of(store.path(), paths.reserve_bytes, remedy)? {
                disks.halted_volumes.insert(volume, reason);
            }
        }
        Ok(disks)
    }
}

fn machines(agent: &AgentState) -> Result<BTreeMap<MachineName, Located>, StoreError> {
    let inventory = agent.volumes.inventory()?;
    for (machine, error) in &inventory.unreadable {
        let error = error as &dyn Error;
        warn!(%machine, error, "cannot read the directory of a machine");
    }
    Ok(inventory.machines)
}

fn drop_stale_facts(agent: &AgentState, machines: &BTreeMap<MachineName, Located>) {
    let existing = machines.values().flat_map(|state| {
        let images = state.view.images.iter().map(|image| image.uuid);
        let trial_images = state.view.trial_images.iter().map(|(_, image)| image.uuid);
        let images = images.chain(trial_images);
        images.chain(state.view.revisions.iter().map(|revision| revision.uuid))
    });
    let existing = existing.collect();
    agent.image_facts.retain(&existing);
    agent.hot_images.cool(&existing, Instant::now());
}

/// Returns the facts of the complete image for a key, else of the current revision.
fn facts(agent: &AgentState, state: &Located, key: &ImageKey) -> Option<Arc<ImageFacts>> {
    let view = &state.view;
    let (uuid, entry) = match view.image(&key.toolchain) {
        Some(image) if image.complete => (image.uuid, Entry::Image(image.toolchain.clone())),
        _ => {
            let revision = view.current()?;
            (revision.uuid, Entry::Revision(revision.revision))
        }
    };
    let directory = agent.volumes.get(state.volume)?.entry(&key.machine, &entry);
    Some(agent.image_facts.get(uuid, &directory))
}

/// Returns the facts of the revision on trial.
fn candidate_facts(agent: &AgentState, state: &Located) -> Option<Arc<ImageFacts>> {
    let (candidate, _) = state.view.candidate()?;
    let entry = Entry::Revision(candidate.revision);
    let directory = agent
        .volumes
        .get(state.volume)?
        .entry(&state.view.name, &entry);
    Some(agent.image_facts.get(candidate.uuid, &directory))
}

/// Returns the resource requests of the guests of each machine with each toolchain. The
/// start of a guest reports a manifest that cannot be used.
fn requests(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, Located>,
    toolchains: &BTreeMap<ToolchainName, Digest>,
) -> BTreeMap<ImageKey, ResourceRequest> {
    let mut requests = BTreeMap::new();
    for (machine, state) in machines {
        for toolchain in toolchains.keys() {
            let key = ImageKey {
                machine: machine.clone(),
                toolchain: toolchain.clone(),
            };
            let facts = facts(agent, state, &key);
            if let Some(Ok(machine)) = facts.as_ref().map(|facts| &facts.machine) {
                let request = capacity::request(&agent.settings(), machine);
                let on_trial = candidate_facts(agent, state);
                let request = match on_trial.as_ref().map(|facts| &facts.machine) {
                    Some(Ok(machine)) => {
                        request.at_least(capacity::request(&agent.settings(), machine))
                    }
                    _ => request,
                };
                requests.insert(key, request);
            }
        }
    }
    requests
}

/// Returns the images of auxiliary machines.
fn auxiliaries(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, Located>,
    toolchains: &BTreeMap<ToolchainName, Digest>,
) -> BTreeSet<ImageKey> {
    let keys = machines.iter().flat_map(|(machine, state)| {
        toolchains.keys().map(move |toolchain| {
            let key = ImageKey {
                machine: machine.clone(),
                toolchain: toolchain.clone(),
            };
            (key, state)
        })
    });
    let is_auxiliary = |(key, state): &(ImageKey, &Located)| {
        let facts = facts(agent, state, key);
        let machine = facts.as_ref().and_then(|facts| facts.machine.as_ref().ok());
        machine.is_some_and(|machine| machine.role == Role::Auxiliary)
    };
    keys.filter(is_auxiliary).map(|(key, _)| key).collect()
}

/// Returns the start modes of builds on each complete image.
fn start_modes(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, Located>,
) -> BTreeMap<ImageKey, StartMode> {
    let mut modes = BTreeMap::new();
    for (machine, state) in machines {
        for image in state.view.images.iter().filter(|image| image.complete) {
            let key = ImageKey {
                machine: machine.clone(),
                toolchain: image.toolchain.clone(),
            };
            if let Some(facts) = facts(agent, state, &key) {
                let mode = agent
                    .restores
                    .start_mode(&agent.settings().guests, &key, &facts);
                modes.insert(key, mode);
            }
        }
    }
    modes
}

/// The hashes of the toolchains, and the reasons why others cannot be used.
type ObservedToolchains = (
    BTreeMap<ToolchainName, Digest>,
    BTreeMap<ToolchainName, String>,
);

fn toolchains(agent: &AgentState) -> Result<ObservedToolchains, StoreError> {
    let (mut usable, mut unusable) = ObservedToolchains::default();
    for name in agent.toolchains.list()? {
        match agent.toolchains.load(&name) {
            Ok(toolchain) => drop(usable.insert(name, toolchain.id)),
            Err(error) => {
                let reason = sys::error_report::chain(&error);
                warn!(toolchain = %name, error = &error as &dyn Error, "cannot use a toolchain");
                unusable.insert(name, reason);
            }
        }
    }
    Ok((usable, unusable))
}

/// Returns the retention rule for old revisions, as of now.
fn retention(machines: &Machines) -> Option<PrunePolicy> {
    Some(PrunePolicy {
        keep: machines.keep_revisions?,
        created_before: SystemTime::now().checked_sub(machines.keep_age),
        free_target: machines.free_bytes_enough,
    })
}

/// Returns the reason for which no guest may start, if `path` is below its reserve.
fn short_of(path: &Path, reserve: u64, remedy: &str) -> Result<Option<String>, StoreError> {
    // Without the free bytes: the text is logged whenever it changes.
    Ok((store::space::bytes_free(path)? < reserve).then(|| {
        format!(
            "{} has less room left than its reserve of {} MiB: {remedy}",
            path.display(),
            reserve / (1024 * 1024)
        )
    }))
}
