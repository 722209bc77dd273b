//! Looks: gathers everything that a plan depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use config::builds::Build;
use config::layout::Entry;
use config::settings::Machines;
use config::task::Digest;
use config::{BuildId, MachineName, ToolchainName};
use jiff::Timestamp;
use store::StoreError;
use store::prune::Rule;
use tracing::warn;

use super::admission::{Rules, Shares};
use super::capacity;
use super::plan::{Ending, Failure, ImageKey, Jobs, MachineState, Observed, Running, Waiting};
use crate::blocking;
use crate::records::RecordsError;
use crate::state::agent_state::AgentState;
use crate::state::restore_history::Starting;

/// Why we could not look.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// At the machines or the toolchains.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// At the queue.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Looks at all there is. What runs is noted first: a job that ends meanwhile is
/// then still accounted for, and one that begins is begun by us alone.
pub(crate) async fn look(
    agent: &Arc<AgentState>,
    failures: BTreeMap<ImageKey, Failure>,
) -> Result<Observed, LookError> {
    let jobs = jobs(agent);
    let now = Timestamp::now();
    let unfinished = agent.records.unfinished().await?;
    let (running, waiting): (Vec<_>, Vec<_>) = unfinished
        .into_iter()
        .partition(|build| jobs.builds.contains_key(&build.id));
    let running = running.into_iter().map(|build| {
        let since = build.started.unwrap_or(now);
        let submitter = build.submitter;
        (build.id, Running { submitter, since })
    });
    let running = running.collect();
    let queue: Vec<_> = waiting.into_iter().map(awaited).collect();
    let endings = endings(agent, &queue).await?;
    let newest = agent.records.newest_id().await?;
    let directories = Arc::clone(agent);
    let (machines, toolchains, (halt, halted), free, starts, demands) = blocking(move || {
        let agent = &directories;
        let machines = machines(agent)?;
        let toolchains = toolchains(agent)?;
        let demands = capacity::demands(agent, &machines, &toolchains);
        let starts = starts(agent, &machines);
        Ok::<_, StoreError>((
            machines,
            toolchains,
            halts(agent)?,
            free(agent)?,
            starts,
            demands,
        ))
    })
    .await?;
    Ok(Observed {
        machines,
        toolchains,
        queue,
        jobs,
        now,
        running,
        endings,
        drained: agent.drained(),
        capacity: capacity::capacity(&agent.settings, &free),
        demands,
        shares: Shares::default(),
        rules: Rules {
            aging: agent.settings.builds.priority_aging,
            patience: agent.settings.builds.backfill_limit,
        },
        failures,
        starts,
        newest,
        halt,
        halted,
        retention: retention(&agent.settings.machines),
        free,
        retries_max: agent.settings.bootstrap.retries_max,
        held_max: agent.settings.builds.held_max,
    })
}

/// What runs.
fn jobs(agent: &AgentState) -> Jobs {
    agent.with_jobs(|jobs| Jobs {
        builds: jobs
            .builds
            .iter()
            .map(|(id, (pair, _))| (*id, pair.clone()))
            .collect(),
        bootstraps: jobs
            .bootstraps
            .iter()
            .map(|(pair, (made, _))| (pair.clone(), made.clone()))
            .collect(),
        pruning: jobs.pruning.clone(),
        held: jobs
            .held
            .iter()
            .map(|(id, job)| (*id, (job.pair.clone(), job.guest)))
            .collect(),
        copies: jobs
            .attached
            .iter()
            .map(|(tag, attached)| (*tag, (attached.pair.clone(), attached.has_begun())))
            .collect(),
    })
}

/// What a plan must know of a build that waits.
fn awaited(build: Build) -> Waiting {
    Waiting {
        id: build.id,
        pair: ImageKey {
            machine: build.machine,
            toolchain: build.toolchain,
        },
        submitter: build.submitter,
        priority: build.priority,
        since: build.submitted,
        not_before: build.not_before,
        after: build.after,
        message: build.message,
    }
}

/// How the builds stand that others wait for.
async fn endings(
    agent: &AgentState,
    queue: &[Waiting],
) -> Result<BTreeMap<BuildId, Ending>, RecordsError> {
    let awaited: BTreeSet<_> = queue
        .iter()
        .flat_map(|it| it.after.iter().copied())
        .collect();
    let mut endings = BTreeMap::new();
    for id in awaited {
        let ending = match agent.records.get(id).await? {
            Some(build) if build.outcome.is_none() => Ending::Open,
            Some(build) if build.succeeded() => Ending::Good,
            Some(_) | None => Ending::Bad,
        };
        endings.insert(id, ending);
    }
    Ok(endings)
}

/// All machines; of those with one name, the one in the first volume.
fn machines(agent: &AgentState) -> Result<BTreeMap<MachineName, MachineState>, StoreError> {
    let mut machines = BTreeMap::new();
    for (volume, store) in agent.volumes.iter().enumerate() {
        for name in store.machines()? {
            match store.look(&name) {
                Ok(view) => {
                    machines
                        .entry(name)
                        .or_insert(MachineState { volume, view });
                }
                // Gone since it was listed, or not readable: the others go on.
                Err(error) => {
                    warn!(machine = %name, "cannot look at a machine: {}", sys::error_report::chain(&error));
                }
            }
        }
    }
    Ok(machines)
}

/// How builds with each image start.
fn starts(
    agent: &AgentState,
    machines: &BTreeMap<MachineName, MachineState>,
) -> BTreeMap<ImageKey, Starting> {
    let mut starts = BTreeMap::new();
    for (machine, seen) in machines {
        for image in seen.view.images.iter().filter(|image| image.complete) {
            let pair = ImageKey {
                machine: machine.clone(),
                toolchain: image.toolchain.clone(),
            };
            let entry = Entry::Image(image.toolchain.clone());
            let directory = agent.volumes[seen.volume].entry(machine, &entry);
            let starting = agent.frozen.look(&agent.settings.guests, &pair, &directory);
            starts.insert(pair, starting);
        }
    }
    starts
}

fn toolchains(agent: &AgentState) -> Result<BTreeMap<ToolchainName, Digest>, StoreError> {
    let mut toolchains = BTreeMap::new();
    for name in agent.toolchains.list()? {
        match agent.toolchains.load(&name) {
            Ok(toolchain) => {
                toolchains.insert(name, toolchain.id);
            }
            Err(error) => {
                warn!(toolchain = %name, "cannot use a toolchain: {}", sys::error_report::chain(&error));
            }
        }
    }
    Ok(toolchains)
}

/// The rule for old revisions, as of now.
fn retention(machines: &Machines) -> Option<Rule> {
    Some(Rule {
        keep: machines.keep_revisions?,
        made_before: SystemTime::now().checked_sub(machines.keep_age),
        until_free: machines.free_bytes_enough,
    })
}

fn free(agent: &AgentState) -> Result<BTreeMap<usize, u64>, StoreError> {
    let volumes = agent.volumes.iter().enumerate();
    volumes
        .map(|(number, volume)| Ok((number, volume.free()?)))
        .collect()
}

/// Why nothing may start: in the state directory, and in each volume.
fn halts(agent: &AgentState) -> Result<(Option<String>, BTreeMap<usize, String>), StoreError> {
    let paths = &agent.settings.paths;
    let halt = short_of(&paths.state, paths.reserve_bytes, "delete builds")?;
    let mut halted = BTreeMap::new();
    for (volume, store) in agent.volumes.iter().enumerate() {
        let way_out = "delete machines, or prune their revisions";
        if let Some(why) = short_of(store.path(), paths.reserve_bytes, way_out)? {
            halted.insert(volume, why);
        }
    }
    Ok((halt, halted))
}

fn short_of(path: &Path, reserve: u64, way_out: &str) -> Result<Option<String>, StoreError> {
    // The words must not change with every byte: they are said when they change.
    Ok((store::space::bytes_free(path)? < reserve).then(|| {
        format!(
            "{} has less room left than its reserve of {} MiB: {way_out}",
            path.display(),
            reserve / (1024 * 1024)
        )
    }))
}
