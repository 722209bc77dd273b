//! The view of the farm, read from the store: what the interface and the pages show.

use config::{BuildId, MachineName};
use farm_core::copies::lost;
use farm_core::placement::why;
use farm_core::site::{HostState, Site};
use farm_core::view::{
    BuildPage, BuildQuery, BuildState, BuildView, FilesPlace, HostQuery, HostView, MachineView,
    QueueView, WindowView, machines, unlike_machines, window_refusal,
};
use farm_core::windows::Window;
use farm_core::{Published, Requirements};
use farm_store::{ArchiveState, Shelves, StoreError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

use crate::coordinator::Coordinator;

/// The number of waiting builds that the queue shows.
const WAITING: u32 = 50;
/// The number of hosts that need attention on the overview.
const ATTENTION_MAX: usize = 12;

/// The hosts and the published machines, as one moment had them.
#[derive(Debug)]
struct Farm {
    sites: Vec<Site>,
    /// The maintenance windows of the hosts that have some.
    windows: BTreeMap<String, Vec<WindowView>>,
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
        let store = coordinator.store();
        let waiting = builds.into_iter();
        let waiting = waiting.filter(|it| it.state == BuildState::Queued);
        let digests: BTreeSet<_> = waiting
            .flat_map(|it| it.requirements.work.digests())
            .collect();
        let digests: Vec<_> = digests.into_iter().collect();
        let shelves = match digests.as_slice() {
            [] => Shelves::default(),
            digests => store.shelves(digests).await?,
        };
        let now_ms = store.now_ms().await?;
        Ok(Self {
            sites: sites(coordinator).await?,
            windows: by_host(store.windows().await?, now_ms),
            published: store.published().await?,
            now: Timestamp::from_millisecond(now_ms.cast_signed()).unwrap_or_default(),
            shelves,
        })
    }

    /// Adds the reason for which each waiting build waits.
    async fn explain<'a>(
        &self,
        coordinator: &Coordinator,
        builds: impl IntoIterator<Item = &'a mut BuildView>,
    ) -> Result<(), StoreError> {
        for build in builds {
            if build.state != BuildState::Queued {
                continue;
            }
            let usual = match build.usual_seconds {
                None if !self.windows.is_empty() => {
                    coordinator.store().usual_seconds(build).await?
                }
                known => known,
            };
            let sources = &build.requirements.work.sources;
            let lost = lost(sources, &self.shelves.copies, &self.shelves.alive);
            build.why = Some(lost.unwrap_or_else(|| self.why(&build.requirements, usual)));
        }
        Ok(())
    }

    fn why(&self, requirements: &Requirements, usual_seconds: Option<u64>) -> String {
        let hosts = self.sites.iter();
        let hosts = hosts.filter(|it| it.state != HostState::Revoked).map(|it| {
            let windows = self.windows.get(&it.name);
            let refusal = windows.and_then(|it| window_refusal(it, self.now, usual_seconds));
            (it, refusal)
        });
        why(requirements, hosts, &self.published)
    }
}

/// Returns the windows of each host as a time of the database shows them.
fn by_host(windows: Vec<(String, Window)>, now_ms: u64) -> BTreeMap<String, Vec<WindowView>> {
    let mut by_host: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (host, window) in windows {
        let window = WindowView::new(window, now_ms);
        by_host.entry(host).or_default().push(window);
    }
    by_host
}

/// Finds a time zone by its name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

/// Returns all hosts by name, without what only people see.
///
/// # Errors
/// The database fails.
pub async fn sites(coordinator: &Coordinator) -> Result<Vec<Site>, StoreError> {
    let lease_ms = coordinator.terms().lease_ms;
    coordinator.store().sites(lease_ms).await
}

/// Returns the hosts that match, by name.
///
/// # Errors
/// The database fails.
pub async fn hosts(
    coordinator: &Coordinator,
    query: &HostQuery,
) -> Result<Vec<HostView>, StoreError> {
    let lease_ms = coordinator.terms().lease_ms;
    completed(
        coordinator,
        coordinator.store().hosts(query, lease_ms).await?,
    )
    .await
}

/// Returns the hosts with these names, by name.
///
/// # Errors
/// The database fails.
pub async fn hosts_named(
    coordinator: &Coordinator,
    names: &[&str],
) -> Result<Vec<HostView>, StoreError> {
    let lease_ms = coordinator.terms().lease_ms;
    let hosts = coordinator.store().hosts_named(names, lease_ms).await?;
    completed(coordinator, hosts).await
}

/// Adds the windows of hosts, and the machines that they get no builds of.
async fn completed(
    coordinator: &Coordinator,
    mut hosts: Vec<HostView>,
) -> Result<Vec<HostView>, StoreError> {
    let store = coordinator.store();
    let published = store.published().await?;
    let names: Vec<_> = hosts.iter().map(|it| it.name.as_str()).collect();
    let windows = store.windows_of(&names).await?;
    if !windows.is_empty() {
        let mut windows = by_host(windows, store.now_ms().await?);
        for host in &mut hosts {
            host.windows = windows.remove(&host.name).unwrap_or_default();
        }
    }
    let compared = hosts.into_iter().map(|it| it.compared(&published));
    Ok(compared.collect())
}

/// Returns the machines by name.
///
/// # Errors
/// The database fails.
pub async fn all_machines(coordinator: &Coordinator) -> Result<Vec<MachineView>, StoreError> {
    let published = coordinator.store().published().await?;
    let trials = coordinator.store().last_trials().await?;
    Ok(machines(&published, &trials, &sites(coordinator).await?))
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
    Ok(queue_and_farm(coordinator).await?.0)
}

async fn queue_and_farm(coordinator: &Coordinator) -> Result<(QueueView, Farm), StoreError> {
    let mut queue = coordinator.store().queue().await?;
    let query = BuildQuery {
        state: Some(BuildState::Queued),
        count: Some(WAITING),
        ..BuildQuery::default()
    };
    queue.waiting = coordinator.store().oldest(&query).await?;
    let farm = Farm::for_builds(coordinator, &queue.waiting).await?;
    farm.explain(coordinator, &mut queue.waiting).await?;
    let alive = farm.sites.iter();
    queue.hosts_alive = alive.filter(|it| it.state == HostState::Alive).count() as u64;
    Ok((queue, farm))
}

/// The queue and the hosts, as the overview shows them.
#[derive(Debug)]
pub struct Overview {
    /// The queue.
    pub queue: QueueView,
    /// The numbers of hosts by state.
    pub states: BTreeMap<HostState, u64>,
    /// The first hosts that need attention.
    pub attention: Vec<HostView>,
    /// The number of further ones.
    pub more: u64,
}

/// Returns the queue and the hosts that need attention: those that are silent or halted, and those that get no
/// builds of a machine until a person mends that.
///
/// # Errors
/// The database fails.
pub async fn overview(coordinator: &Coordinator) -> Result<Overview, StoreError> {
    let (queue, farm) = queue_and_farm(coordinator).await?;
    let mut states = BTreeMap::new();
    for site in &farm.sites {
        *states.entry(site.state).or_default() += 1;
    }
    let rank = |site: &Site| match site.state {
        HostState::Silent => Some(0),
        HostState::Halted => Some(1),
        HostState::New | HostState::Revoked => None,
        _ => {
            let mut unlike = unlike_machines(&site.offer, &farm.published);
            unlike.next().map(|_| 2)
        }
    };
    let hosts = farm.sites.iter().filter_map(|it| Some((rank(it)?, it)));
    let mut hosts: Vec<_> = hosts.map(|(rank, it)| (rank, it.name.as_str())).collect();
    hosts.sort_unstable();
    let more = hosts.len().saturating_sub(ATTENTION_MAX);
    hosts.truncate(ATTENTION_MAX);
    let names: Vec<_> = hosts.iter().map(|(_, name)| *name).collect();
    let mut attention = hosts_named(coordinator, &names).await?;
    attention.sort_by_key(|it| names.iter().position(|name| *name == it.name));
    Ok(Overview {
        queue,
        states,
        attention,
        more: more as u64,
    })
}
