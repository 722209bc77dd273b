//! Looks: gathers everything that a plan depends on.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::task::Digest;
use config::{MachineName, ToolchainName};
use store::StoreError;
use tracing::warn;

use super::plan::{Failure, Jobs, Pair, Seen, Waiting, World};
use crate::blocking;
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
pub(super) async fn look(
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
    let newest = host
        .records
        .newest(None, 1)
        .await?
        .first()
        .map(|build| build.id);
    let directories = Arc::clone(host);
    let (machines, toolchains) =
        blocking(move || Ok::<_, StoreError>((machines(&directories)?, toolchains(&directories)?)))
            .await?;
    Ok(World {
        machines,
        toolchains,
        queue: queue.collect(),
        jobs,
        failures,
        newest,
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
