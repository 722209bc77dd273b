//! The view of the farm, read from the store: what the interface and the pages show.

use config::{BuildId, MachineName};
use farm_core::copies::lost;
use farm_core::operation::HostRow;
use farm_core::placement::why;
use farm_core::view::{
    BuildPage, BuildQuery, BuildState, BuildView, FilesPlace, HostView, MachineView, QueueView,
    WindowView, machines,
};
use farm_core::{HostId, Published};
use farm_store::{ArchiveState, Shelves, StoreError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::Coordinator;

/// The number of waiting builds that the queue shows.
const WAITING: u32 = 50;

/// The hosts and the published machines, as one moment had them.
#[derive(Debug)]
struct Farm {
    hosts: Vec<HostView>,
    published: BTreeMap<MachineName, Published>,
    /// The time of the database, which decides about windows.
    now: Timestamp,
    /// The sources of the builds that wait.
    shelves: Shelves,
}

impl Farm {
    /// Reads the farm as far as it explains why builds wait.
    async fn for_builds(
        coordinator: &Coordinator,
        builds: impl IntoIterator<Item = &BuildView>,
    ) -> Result<Self, StoreError> {
        let mut farm = Self::read(coordinator).await?;
        let waiting = builds.into_iter();
        let waiting = waiting.filter(|it| it.state == BuildState::Queued);
        let digests: BTreeSet<_> = waiting
            .flat_map(|it| it.requirements.work.digests())
            .collect();
        if !digests.is_empty() {
            let digests: Vec<_> = digests.into_iter().collect();
            farm.shelves = coordinator.store().shelves(&digests).await?;
        }
        Ok(farm)
    }

    async fn read(coordinator: &Coordinator) -> Result<Self, StoreError> {
        let lease_ms = coordinator.terms().lease_ms;
        let published = coordinator.store().published().await?;
        let hosts = coordinator.store().hosts(lease_ms).await?;
        let hosts = hosts.into_iter().map(|it| it.compared(&published));
        let mut hosts: Vec<_> = hosts.collect();
        let now_ms = coordinator.store().now_ms().await?;
        for (name, window) in coordinator.store().windows().await? {
            let host = hosts.iter_mut().find(|it| it.name == name);
            if let Some(host) = host {
                host.windows.push(WindowView::new(window, now_ms));
            }
        }
        Ok(Self {
            hosts,
            published,
            now: Timestamp::from_millisecond(now_ms.cast_signed()).unwrap_or_default(),
            shelves: Shelves::default(),
        })
    }

    /// Adds the reason for which each waiting build waits.
    async fn explain<'a>(
        &self,
        coordinator: &Coordinator,
        builds: impl IntoIterator<Item = &'a mut BuildView>,
    ) -> Result<(), StoreError> {
        let hosts: Vec<_> = self.hosts.iter().filter(|it| !it.revoked).collect();
        let has_windows = hosts.iter().any(|it| !it.windows.is_empty());
        for build in builds {
            if build.state != BuildState::Queued {
                continue;
            }
            let usual = match build.usual_seconds {
                None if has_windows => coordinator.store().usual_seconds(build).await?,
                known => known,
            };
            let row = |host: &&HostView| row(host, host.window_refusal(self.now, usual));
            let rows: Vec<_> = hosts.iter().map(row).collect();
            let sources = &build.requirements.work.sources;
            let lost = lost(sources, &self.shelves.copies, &self.shelves.alive);
            let why = || why(&build.requirements, &rows, &self.published);
            build.why = Some(lost.unwrap_or_else(why));
        }
        Ok(())
    }
}

/// Finds a time zone by its name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// Returns a host as the rules of placement know it, with the reason for which a window keeps the build off
/// it. A silent one takes no builds.
fn row(host: &HostView, window: Option<String>) -> (String, HostRow) {
    let mut offer = host.offer.clone();
    if let Some(window) = window {
        offer.halt = Some(window);
    }
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
    Ok(Farm::read(coordinator).await?.hosts)
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
        let farm = Farm::for_builds(coordinator, &page.builds).await?;
        farm.explain(coordinator, &mut page.builds).await?;
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
        let farm = Farm::for_builds(coordinator, &found).await?;
        farm.explain(coordinator, &mut found).await?;
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
    let mut queue = coordinator.store().queue().await?;
    let query = BuildQuery {
        state: Some(BuildState::Queued),
        count: Some(WAITING),
        ..BuildQuery::default()
    };
    queue.waiting = coordinator.store().oldest(&query).await?;
    let farm = Farm::for_builds(coordinator, &queue.waiting).await?;
    farm.explain(coordinator, &mut queue.waiting).await?;
    let takes_builds = |it: &&HostView| it.state() == "alive";
    queue.hosts_alive = farm.hosts.iter().filter(takes_builds).count() as u64;
    Ok(queue)
}
