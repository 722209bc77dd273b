//! Looks: gathers everything that a plan depends on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use config::layout::Entry;
use config::settings::Machines;
use config::task::Digest;
use config::{MachineName, ToolchainName};
use store::StoreError;
use store::prune::Rule;
use tracing::warn;

use super::plan::{Failure, Jobs, Pair, Seen, Waiting, World};
use crate::blocking;
use crate::frozen::Starting;
use crate::host::Host;
use crate::records::RecordsError;

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
    host: &Arc<Host>,
    failures: BTreeMap<Pair, Failure>,
) -> Result<World, LookError> {
    let jobs = host.with_jobs(|jobs| Jobs {
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
    });
    let unfinished = host.records.unfinished().await?;
    let waiting = unfinished
        .into_iter()
        .filter(|build| !jobs.builds.contains_key(&build.id));
    let queue = waiting.map(|build| Waiting {
        id: build.id,
        pair: Pair {
            machine: build.machine,
            toolchain: build.toolchain,
        },
        message: build.message,
    });
    let newest = host.records.newest_id().await?;
    let directories = Arc::clone(host);
    let (machines, toolchains, (halt, halted), free, starts) = blocking(move || {
        let host = &directories;
        let machines = machines(host)?;
        let starts = starts(host, &machines);
        Ok::<_, StoreError>((
            machines,
            toolchains(host)?,
            halts(host)?,
            free(host)?,
            starts,
        ))
    })
    .await?;
    Ok(World {
        machines,
        toolchains,
        queue: queue.collect(),
        jobs,
        failures,
        starts,
        newest,
        halt,
        halted,
        retention: retention(&host.settings.machines),
        free,
        guests_max: host.settings.guests.parallel_max,
        retries_max: host.settings.bootstrap.retries_max,
    })
}

/// All machines; of those with one name, the one in the first volume.
fn machines(host: &Host) -> Result<BTreeMap<MachineName, Seen>, StoreError> {
    let mut machines = BTreeMap::new();
    for (volume, store) in host.volumes.iter().enumerate() {
        for name in store.machines()? {
            match store.look(&name) {
                Ok(view) => {
                    machines.entry(name).or_insert(Seen { volume, view });
                }
                // Gone since it was listed, or not readable: the others go on.
                Err(error) => {
                    warn!(machine = %name, "cannot look at a machine: {}", crate::chain(&error));
                }
            }
        }
    }
    Ok(machines)
}

/// How builds with each image start.
fn starts(host: &Host, machines: &BTreeMap<MachineName, Seen>) -> BTreeMap<Pair, Starting> {
    let mut starts = BTreeMap::new();
    for (machine, seen) in machines {
        for image in seen.view.images.iter().filter(|image| image.complete) {
            let pair = Pair {
                machine: machine.clone(),
                toolchain: image.toolchain.clone(),
            };
            let entry = Entry::Image(image.toolchain.clone());
            let directory = host.volumes[seen.volume].entry(machine, &entry);
            let starting = host.frozen.look(&host.settings.guests, &pair, &directory);
            starts.insert(pair, starting);
        }
    }
    starts
}

fn toolchains(host: &Host) -> Result<BTreeMap<ToolchainName, Digest>, StoreError> {
    let mut toolchains = BTreeMap::new();
    for name in host.toolchains.list()? {
        match host.toolchains.load(&name) {
            Ok(toolchain) => {
                toolchains.insert(name, toolchain.id);
            }
            Err(error) => {
                warn!(toolchain = %name, "cannot use a toolchain: {}", crate::chain(&error));
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
        until_free: machines.enough_free_bytes,
    })
}

fn free(host: &Host) -> Result<BTreeMap<usize, u64>, StoreError> {
    let volumes = host.volumes.iter().enumerate();
    volumes
        .map(|(number, volume)| Ok((number, volume.free()?)))
        .collect()
}

/// Why nothing may start: in the state directory, and in each volume.
fn halts(host: &Host) -> Result<(Option<String>, BTreeMap<usize, String>), StoreError> {
    let paths = &host.settings.paths;
    let halt = short_of(&paths.state, paths.reserve_bytes, "delete builds")?;
    let mut halted = BTreeMap::new();
    for (volume, store) in host.volumes.iter().enumerate() {
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
