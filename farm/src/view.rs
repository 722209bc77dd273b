//! The view of the farm, read from the store: what the interface and the pages show.

use config::{BuildId, MachineName};
use farm_core::HostId;
use farm_core::Revision;
use farm_core::operation::HostRow;
use farm_core::placement::why;
use farm_core::view::{
    BuildPage, BuildQuery, BuildState, BuildView, FilesPlace, HostView, MachineView, QueueView,
    machines,
};
use farm_store::{ArchiveState, StoreError};
use std::collections::BTreeMap;

use crate::coordinator::Coordinator;

/// The number of waiting builds that the queue shows.
const WAITING: u32 = 50;

/// The hosts and the published machines, as one moment had them.
#[derive(Debug)]
struct Farm {
    hosts: Vec<HostView>,
    published: BTreeMap<MachineName, Revision>,
}

impl Farm {
    async fn read(coordinator: &Coordinator) -> Result<Self, StoreError> {
        Ok(Self {
            hosts: hosts(coordinator).await?,
            published: coordinator.store().published().await?,
        })
    }

    /// Adds the reason for which each waiting build waits.
    fn explain<'a>(&self, builds: impl IntoIterator<Item = &'a mut BuildView>) {
        let rows: Vec<_> = self
            .hosts
            .iter()
            .filter(|it| !it.revoked)
            .map(row)
            .collect();
        for build in builds {
            if build.state == BuildState::Queued {
                build.why = Some(why(&build.requirements, &rows, &self.published));
            }
        }
    }
}

/// Returns a host as the rules of placement know it. A silent one takes no builds.
fn row(host: &HostView) -> (String, HostRow) {
    let mut offer = host.offer.clone();
    if !host.alive {
        offer.halt = Some("it gives no sign of life".to_owned());
    }
    let row = HostRow {
        host: HostId(0),
        beat: 0,
        leases: host.builds,
        orders: 0,
        drained: host.drained,
        offer,
    };
    (host.name.clone(), row)
}

/// Returns the hosts by name.
///
/// # Errors
/// The database fails.
pub async fn hosts(coordinator: &Coordinator) -> Result<Vec<HostView>, StoreError> {
    let lease_ms = coordinator.terms().lease_ms;
    coordinator.store().hosts(lease_ms).await
}

/// Returns the machines by name.
///
/// # Errors
/// The database fails.
pub async fn all_machines(coordinator: &Coordinator) -> Result<Vec<MachineView>, StoreError> {
    let farm = Farm::read(coordinator).await?;
    Ok(machines(&farm.published, &farm.hosts))
}

/// Returns a page of builds; those that wait with their reasons.
///
/// # Errors
/// The database fails.
pub async fn builds(
    coordinator: &Coordinator,
    query: &BuildQuery,
) -> Result<BuildPage, StoreError> {
    let mut page = coordinator.store().builds(query).await?;
    if page.builds.iter().any(|it| it.state == BuildState::Queued) {
        Farm::read(coordinator).await?.explain(&mut page.builds);
    }
    Ok(page)
}

/// Returns one build.
///
/// # Errors
/// The database fails.
pub async fn build(
    coordinator: &Coordinator,
    build: BuildId,
) -> Result<Option<BuildView>, StoreError> {
    let mut found = coordinator.store().build(build).await?;
    if found
        .as_ref()
        .is_some_and(|it| it.state == BuildState::Queued)
    {
        Farm::read(coordinator).await?.explain(&mut found);
    }
    if let Some(view) = &mut found
        && view.state == BuildState::Finished
        && coordinator.objects().is_some()
    {
        let state = coordinator.store().archive_of(build).await?;
        view.files = Some(match state {
            ArchiveState::Host => FilesPlace::Host,
            ArchiveState::Waiting => FilesPlace::Waiting,
            ArchiveState::Stored(_) => FilesPlace::Stored,
            ArchiveState::Lost => FilesPlace::Lost,
        });
    }
    Ok(found)
}

/// Returns the queue with the first builds that wait.
///
/// # Errors
/// The database fails.
pub async fn queue(coordinator: &Coordinator) -> Result<QueueView, StoreError> {
    let farm = Farm::read(coordinator).await?;
    let mut queue = coordinator.store().queue().await?;
    let query = BuildQuery {
        state: Some(BuildState::Queued),
        count: Some(WAITING),
        ..BuildQuery::default()
    };
    queue.waiting = coordinator.store().oldest(&query).await?;
    farm.explain(&mut queue.waiting);
    let takes_builds = |it: &&HostView| it.alive && !it.drained && !it.revoked;
    queue.hosts_alive = farm.hosts.iter().filter(takes_builds).count() as u64;
    Ok(queue)
}
