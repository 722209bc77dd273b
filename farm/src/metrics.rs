//! The metrics of a coordinator, for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use config::canary::TrialVerdict;
use config::schedule::RunResult;
use farm_core::operation::{Answer, Operation, Unknown};
use farm_core::site::HostState;
use farm_core::view::{QueueView, ScheduleView};
use farm_store::{SourceCounts, Uploads};
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The names of all metrics begin with it.
const PREFIX: &str = "buildhost_farm";
type Gauges = Family<Vec<(&'static str, &'static str)>, Gauge>;

/// The counters of one coordinator since its start. Those of the farm are their sums.
#[derive(Debug)]
pub struct Counters {
    registry: Registry,
    /// Builds that hosts got.
    claimed: Counter<u64, AtomicU64>,
    /// Results of hosts.
    results: Counter<u64, AtomicU64>,
    /// Leases that silent hosts lost.
    rescued: Counter<u64, AtomicU64>,
    /// Results that were refused, because their leases are over or of others.
    refused: Counter<u64, AtomicU64>,
    /// Runs of schedules, by their result.
    runs: Family<Vec<(&'static str, &'static str)>, Counter<u64, AtomicU64>>,
    /// Trials of revisions that this coordinator has ended, by verdict.
    trials: Family<Vec<(&'static str, &'static str)>, Counter<u64, AtomicU64>>,
    /// Builds whose files are in the object store.
    archived: Counter<u64, AtomicU64>,
    /// Builds whose files no host had any more.
    lost: Counter<u64, AtomicU64>,
    /// Attempts to put files into the object store that failed.
    upload_failures: Counter<u64, AtomicU64>,
    /// Statements of which the effect is unknown.
    unknown: Counter<u64, AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let runs = Family::default();
        registry.register(
            "schedule_runs",
            "Runs of schedules, by result",
            Family::clone(&runs),
        );
        let trials = Family::default();
        registry.register(
            "trials",
            "Trials of revisions that have ended, by verdict",
            Family::clone(&trials),
        );
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        Self {
            claimed: counter("builds_claimed", "Builds that hosts got"),
            results: counter("results", "Results that hosts reported"),
            rescued: counter("leases_rescued", "Leases that silent hosts lost"),
            refused: counter(
                "results_refused",
                "Results of leases that were over or of others",
            ),
            archived: counter(
                "builds_archived",
                "Builds whose log and artifacts were put into the object store",
            ),
            lost: counter(
                "builds_files_lost",
                "Builds whose log and artifacts no host had any more",
            ),
            upload_failures: counter(
                "upload_failures",
                "Attempts to put files into the object store that failed, and are repeated",
            ),
            unknown: counter(
                "database_failures",
                "Statements that failed, and of which the effect is unknown",
            ),
            runs,
            trials,
            registry,
        }
    }
}

impl Counters {
    /// Counts an operation on the database.
    pub(crate) fn count(&self, operation: &Operation, answer: &Result<Answer, Unknown>) {
        match (operation, answer) {
            (_, Err(Unknown)) => self.unknown.inc(),
            (_, Ok(Answer::Claimed(grants))) => self.claimed.inc_by(grants.len() as u64),
            (_, Ok(Answer::Rescued(leases))) => self.rescued.inc_by(leases.len() as u64),
            (_, Ok(Answer::Ran(_, result))) => self.ran(*result),
            (Operation::Finish(..), Ok(Answer::Recorded)) => self.results.inc(),
            (Operation::Finish(..), Ok(Answer::Stale)) => self.refused.inc(),
            (Operation::EndTrial { verdict, .. }, Ok(Answer::Done)) => self.ended(*verdict),
            (Operation::Archive(_, Some(_)), Ok(Answer::Done)) => self.archived.inc(),
            (Operation::Archive(_, None), Ok(Answer::Done)) => self.lost.inc(),
            _ => return,
        };
    }

    fn ran(&self, result: RunResult) -> u64 {
        let name = RunResult::ALL.iter().find(|(known, _)| *known == result);
        let name = name.map_or("", |(_, name)| name);
        let counter = self.runs.get_or_create(&vec![("result", name)]);
        counter.inc()
    }

    fn ended(&self, verdict: TrialVerdict) -> u64 {
        let name = match verdict {
            TrialVerdict::Promoted => "promoted",
            TrialVerdict::RolledBack => "rolled_back",
        };
        let counter = self.trials.get_or_create(&vec![("verdict", name)]);
        counter.inc()
    }

    /// Counts an attempt to put files into the object store that failed.
    pub(crate) fn upload_failed(&self) {
        self.upload_failures.inc();
    }

    /// Returns the counters in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        text(&self.registry)
    }
}

/// The state of a farm.
#[derive(Debug)]
pub struct FarmState {
    /// The queue.
    pub queue: QueueView,
    /// The numbers of hosts by state.
    pub hosts: BTreeMap<HostState, u64>,
    /// The schedules.
    pub schedules: Vec<ScheduleView>,
    /// The builds whose files wait for the object store, if there is one.
    pub uploads: Option<Uploads>,
    /// The number of notifications that wait, by rule.
    pub notifications: Vec<(String, u32)>,
    /// The number of revisions on trial.
    pub trials_open: usize,
    /// The sources.
    pub sources: SourceCounts,
    /// The size of this coordinator's files of sources, if its disk answers.
    pub source_bytes: Option<u64>,
}

/// Returns the state of the farm in the text format of OpenMetrics. It is `None` if the database does not
/// answer.
pub fn gauges(farm: Option<&FarmState>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let help = "1 if the database answers the coordinator";
    single(&mut registry, "database_up", help, farm.is_some().into());
    if let Some(farm) = farm {
        queue_gauges(&mut registry, &farm.queue);
        let states = Gauges::default();
        for (state, name) in HostState::ALL {
            set(&states, name, farm.hosts.get(&state).copied().unwrap_or(0));
        }
        registry.register("hosts", "Hosts, by state", states);
        schedule_gauges(&mut registry, &farm.schedules, farm.queue.at);
        notification_gauges(&mut registry, &farm.notifications);
        let open = farm.trials_open as u64;
        single(&mut registry, "trials_open", "Revisions on trial", open);
        file_gauges(&mut registry, farm);
    }
    text(&registry)
}

fn queue_gauges(registry: &mut Registry, queue: &QueueView) {
    let builds = Gauges::default();
    for (state, count) in [("queued", queue.queued), ("running", queue.running)] {
        set(&builds, state, count);
    }
    let help = "Builds without a result, by state";
    registry.register("builds_unfinished", help, builds);
    let age = queue.oldest.map(|it| seconds(it, queue.at));
    let help = "Seconds since the submission of the oldest build that waits";
    single(registry, "queue_oldest_seconds", help, age.unwrap_or(0));
}

fn schedule_gauges(registry: &mut Registry, schedules: &[ScheduleView], now: Timestamp) {
    let paused = schedules.iter().filter(|it| it.is_paused).count();
    let counts = Gauges::default();
    set(&counts, "active", (schedules.len() - paused) as u64);
    set(&counts, "paused", paused as u64);
    registry.register("schedules", "Schedules, by state", counts);
    let next = schedules.iter().filter_map(|it| it.next).min();
    let late = next.map_or(0, |next| seconds(next, now));
    let help = "Seconds since the oldest time of a schedule that has not run";
    single(registry, "schedule_late_seconds", help, late);
}

/// Adds the gauges of notifications.
fn notification_gauges(registry: &mut Registry, notifications: &[(String, u32)]) {
    let waiting = Family::<Vec<(&'static str, String)>, Gauge>::default();
    for (rule, count) in notifications {
        let label = vec![("rule", rule.clone())];
        waiting.get_or_create(&label).set((*count).into());
    }
    let help = "Notifications that wait for delivery, by rule";
    registry.register("notifications_waiting", help, waiting);
}

/// Adds the gauges of sources, and of the files that wait for the object store.
fn file_gauges(registry: &mut Registry, farm: &FarmState) {
    single(registry, "sources", "Sources", farm.sources.kept);
    let help = "Sources that builds or schedules need and no coordinator has that is alive";
    single(registry, "sources_missing", help, farm.sources.missing);
    if let Some(bytes) = farm.source_bytes {
        let help = "Bytes of the files of sources of this coordinator";
        single(registry, "source_files_bytes", help, bytes);
    }
    if let Some(uploads) = farm.uploads {
        let help = "Builds whose log and artifacts wait for the object store";
        single(registry, "uploads_waiting", help, uploads.waiting);
        let help = "Seconds since the end of the oldest build among them";
        single(
            registry,
            "uploads_oldest_seconds",
            help,
            uploads.oldest_seconds,
        );
    }
}

/// Returns the whole seconds between two times; 0 if the first is the later one.
fn seconds(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.duration_since(from).as_secs()).unwrap_or(0)
}

/// Adds a gauge without labels.
fn single(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn set(gauges: &Gauges, state: &'static str, count: u64) {
    let gauge = gauges.get_or_create(&vec![("state", state)]);
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    text
}
