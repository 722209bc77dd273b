//! The state that all parts of a running agent share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cache::Caches;
use config::builds::Status;
use config::queue::Drained;
use config::settings::{CurrentSettings, Settings};
use config::{BuildId, CopyTag, GuestTag, ScheduleName};
use guest::Uids;
use parking_lot::Mutex;
use records::{EndRules, Records};
use secrets::SecretStore;
use session::console::ConsoleRegistry;
use session::{BitBakeServices, GuestServices};
use store::Volumes;
use store::toolchains::Toolchains;
use telemetry::Telemetry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use yocto::{Catalog, Mirrors, Policy};

use super::contacts::Contacts;
use super::hot_images::HotImages;
use super::image_facts::ImageFactsCache;
use super::job_table::JobTable;
use super::lease_deadlines::LeaseDeadlines;
use super::machine_sizes::MachineSizes;
use super::paths::StatePaths;
use super::ready_pool::ReadyPool;
use super::restore_history::RestoreHistory;
use super::status::QueueSnapshot;

/// The state that all parts of a running agent share.
#[derive(Debug)]
pub struct AgentState {
    /// The settings, which a reload changes.
    pub current_settings: CurrentSettings,
    /// The layout of the state directory.
    pub paths: StatePaths,
    /// The volumes, in the order of the settings.
    pub volumes: Volumes,
    /// The toolchains.
    pub toolchains: Toolchains,
    /// The records of builds and schedules.
    pub records: Records,
    /// The secrets that builds may have.
    pub secrets: SecretStore,
    /// The layers, releases and projects.
    pub catalog: Catalog,
    /// The mirrors of the repositories of layers.
    pub mirrors: Mirrors,
    /// The caches between builds.
    pub caches: Caches,
    /// The events and the counters.
    pub telemetry: Telemetry,
    /// The PR service and the hash equivalence service.
    pub bitbake: BitBakeServices,
    /// The path of the settings file, which is set once at the start.
    pub settings_file: OnceLock<PathBuf>,
    /// The parts that the sessions of guests use.
    pub guests: Arc<GuestServices>,
    /// Wakes those who wait by the settings, after a reload.
    pub reloaded: Notify,
    /// Starts a round of the scheduler.
    pub wake: Notify,
    /// Starts a round after a short delay: a directory has changed and may change again.
    pub stirred: Notify,
    /// Wakes those who wait for space in the state directory.
    pub space_freed: Notify,
    /// The jobs that run.
    pub jobs: JobTable,
    /// The tasks of the jobs.
    pub tasks: TaskTracker,
    /// Cancelled when the agent stops: no job starts any more, and running ones end.
    pub stopping: CancellationToken,
    /// Cancelled as well when the guests of builds are left to the next agent.
    pub leaving: CancellationToken,
    /// The lock under which a build leaves the queue.
    pub queue: tokio::sync::Mutex<()>,
    /// The facts of the images and revisions, each read once.
    pub image_facts: ImageFactsCache,
    /// The space that machines take.
    pub machine_sizes: MachineSizes,
    /// The images from which guests are restored often.
    pub hot_images: HotImages,
    /// The guests that wait for builds.
    pub ready: ReadyPool,
    /// The failed restores of checkpoints.
    pub restores: RestoreHistory,
    /// The contacts with controllers.
    pub contacts: Contacts,
    /// The reason for which guests are not registered with machined; `None` if they are, and on a host
    /// without machined.
    pub machined_fault: Mutex<Option<String>>,
    /// The deadlines of builds with guards.
    pub lease_deadlines: LeaseDeadlines,
    /// The schedules whose projects are being resolved.
    pub resolving: Mutex<BTreeSet<ScheduleName>>,
    status: watch::Sender<Option<Status>>,
    queue_snapshot: watch::Sender<QueueSnapshot>,
    drained: watch::Sender<Option<Drained>>,
    bootstraps: AtomicU64,
    copies: AtomicU64,
    ready_tags: AtomicU64,
}

impl AgentState {
    /// Returns the state of an agent without jobs.
    pub fn new(
        settings: Settings,
        volumes: Volumes,
        toolchains: Toolchains,
        records: Records,
        caches: Caches,
        telemetry: Telemetry,
        bitbake: BitBakeServices,
    ) -> Self {
        let run_dir = session::guests_directory(&settings.paths.run);
        let current_settings = CurrentSettings::new(settings);
        let settings = current_settings.get();
        let guests = GuestServices {
            name: settings.name.clone(),
            settings: current_settings.clone(),
            pr_settings: settings.pr.clone(),
            bitbake: bitbake.clone(),
            uids: Uids::new(settings.guests.uids, run_dir.clone()),
            run_dir,
            consoles: ConsoleRegistry::default(),
            commands: session::commands::CommandRegistry::default(),
            metrics: Arc::clone(&telemetry.metrics),
            started: Notify::new(),
        };
        let paths = StatePaths::new(&settings.paths.state);
        let policy = Policy {
            hosts: settings.layers.git_hosts.clone(),
            directories: settings.layers.directories.clone(),
            credentials: settings.layers.git_credentials.clone(),
            ssh_directory: settings.layers.git_ssh.clone(),
            proxies: yocto::proxies(settings.layers.git_proxy.as_deref(), |name| {
                std::env::var(name).ok()
            }),
        };
        Self {
            guests: Arc::new(guests),
            current_settings,
            volumes,
            toolchains,
            records: records.with_end_rules(EndRules {
                notify: settings.notify.clone(),
                feeds: settings.feeds.clone(),
            }),
            secrets: SecretStore::new(&paths.secrets()),
            catalog: Catalog::new(&paths.layers()),
            mirrors: Mirrors::new(&paths.mirrors(), policy),
            caches,
            paths,
            telemetry,
            bitbake,
            settings_file: OnceLock::new(),
            reloaded: Notify::new(),
            wake: Notify::new(),
            stirred: Notify::new(),
            space_freed: Notify::new(),
            jobs: JobTable::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            leaving: CancellationToken::new(),
            queue: tokio::sync::Mutex::default(),
            image_facts: ImageFactsCache::default(),
            machine_sizes: MachineSizes::default(),
            hot_images: HotImages::default(),
            ready: ReadyPool::default(),
            restores: RestoreHistory::default(),
            contacts: Contacts::default(),
            machined_fault: Mutex::default(),
            lease_deadlines: LeaseDeadlines::default(),
            resolving: Mutex::default(),
            status: watch::Sender::default(),
            queue_snapshot: watch::Sender::default(),
            drained: watch::Sender::default(),
            bootstraps: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            ready_tags: AtomicU64::new(0),
        }
    }

    /// Returns the settings of this moment.
    pub fn settings(&self) -> Arc<Settings> {
        self.current_settings.get()
    }

    /// Returns the status after the scheduler's last round; `None` before the first.
    pub fn status(&self) -> Option<Status> {
        self.status.borrow().clone()
    }

    /// Publishes the status after a round of the scheduler.
    pub fn publish_status(&self, status: Status) {
        self.status.send_modify(|last| {
            self.telemetry.events.status(last.as_ref(), &status);
            *last = Some(status);
        });
    }

    /// Returns the queue as the scheduler's last round saw it.
    pub fn queue_snapshot(&self) -> QueueSnapshot {
        self.queue_snapshot.borrow().clone()
    }

    /// Publishes the queue as a round of the scheduler saw it.
    pub fn publish_queue(&self, queue: QueueSnapshot) {
        self.queue_snapshot.send_replace(queue);
    }

    /// Returns since when and why the host is drained, if it is.
    pub fn drained(&self) -> Option<Drained> {
        self.drained.borrow().clone()
    }

    /// Sets whether the host is drained; [`super::maintenance`] makes that durable.
    pub(super) fn set_drained(&self, drained: Option<Drained>) {
        // Under the lock of the jobs, so that no bootstrap starts on an older decision.
        self.jobs.with(|_| self.drained.send_replace(drained));
    }

    /// Returns the short name of the next debug session of a build.
    pub fn next_copy(&self, build: BuildId) -> CopyTag {
        let number = self.copies.fetch_add(1, Ordering::Relaxed) + 1;
        CopyTag { build, number }
    }

    /// Returns the short name of the next bootstrap's guest.
    pub fn next_bootstrap(&self) -> String {
        let number = self.bootstraps.fetch_add(1, Ordering::Relaxed) + 1;
        GuestTag::Bootstrap(number).to_string()
    }

    /// Returns the short name of the next ready guest.
    pub fn next_ready(&self) -> GuestTag {
        GuestTag::Ready(self.ready_tags.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
