//! The counters of the agent, for Prometheus. The PR service has its own.

mod caches;
mod controllers;
mod host;
mod process;

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use config::ScheduleName;
use config::builds::{Build, Phase, State};
use config::canary::TrialVerdict;
use config::schedule::RunResult;
use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use caches::{CacheMetrics, CacheResult, TransferDirection};
pub use controllers::{ControllerMetrics, RequestResult};
pub use host::{Admission, HostGauges};

use host::AgentGauges;

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type FloatCounters = Family<Labels, Counter<f64, AtomicU64>>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Single = Gauge<f64, AtomicU64>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// The counters of one agent.
#[derive(Debug)]
pub struct Metrics {
    /// The counters of caches between builds.
    pub caches: CacheMetrics,
    /// The counters of controllers.
    pub controllers: ControllerMetrics,
    builds: Counters,
    phases: Histograms,
    guest_seconds: FloatCounters,
    schedule_runs: Counters,
    bootstraps: Counters,
    trials: Counters,
    bootstrap_seconds: Histograms,
    starts: Counters,
    restore_failures: Counter,
    fork_stops: Histograms,
    tftp_bytes: Counters,
    requests: Counters,
    request_seconds: Histograms,
    gauges: Mutex<AgentGauges>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("buildhost");
        let seconds = || Histogram::new(exponential_buckets(0.05, 2.0, 18));
        let requests = || Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let version = ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        all.register("agent", "The agent", Info::new(vec![version]));
        register_start_time(&mut all);
        let restore_failures = Counter::default();
        all.register(
            "frozen_evictions",
            "Checkpoints that could not be restored",
            restore_failures.clone(),
        );
        let metrics = Self {
            caches: CacheMetrics::register(&mut all),
            controllers: ControllerMetrics::register(&mut all),
            builds: counter(&mut all, "builds", "Finished builds"),
            phases: histogram(
                &mut all,
                "build_phase",
                "Time that builds spent in a state",
                seconds,
            ),
            guest_seconds: guest_seconds(&mut all),
            schedule_runs: counter(&mut all, "schedule_runs", "Runs of schedules"),
            bootstraps: counter(&mut all, "bootstraps", "Finished bootstraps"),
            trials: counter(&mut all, "trials", "Ended trials of revisions"),
            bootstrap_seconds: histogram(&mut all, "bootstrap", "Duration of bootstraps", seconds),
            starts: counter(&mut all, "guest_starts", "Started guests"),
            restore_failures,
            fork_stops: fork_stops(&mut all),
            tftp_bytes: counter(&mut all, "tftp_bytes", "Bytes transferred by TFTP"),
            requests: counter(&mut all, "http_requests", "Answered requests"),
            request_seconds: histogram(
                &mut all,
                "http_request",
                "Time until the start of the response",
                requests,
            ),
            gauges: Mutex::new(AgentGauges::new(all)),
        };
        metrics.begin();
        metrics
    }
}

fn register_start_time(registry: &mut Registry) {
    let started: Gauge<f64, AtomicU64> = Gauge::default();
    started.set(jiff::Timestamp::now().as_duration().as_secs_f64());
    registry.register_with_unit(
        "start_time",
        "Start time of the agent",
        Unit::Seconds,
        started,
    );
}

fn fork_stops(registry: &mut Registry) -> Histograms {
    let help = "Time for which guests were stopped to be forked";
    histogram(registry, "fork_stop", help, || {
        Histogram::new(exponential_buckets(0.005, 2.0, 12))
    })
}

fn guest_seconds(registry: &mut Registry) -> FloatCounters {
    let counters = FloatCounters::default();
    let help = "Time that the guests of finished builds ran";
    registry.register_with_unit("guest", help, Unit::Seconds, counters.clone());
    counters
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counters {
    let counters = Counters::default();
    registry.register(name, help, counters.clone());
    counters
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let gauges = Gauges::default();
    registry.register(name, help, gauges.clone());
    gauges
}

/// Registers a gauge without labels.
fn single(registry: &mut Registry, name: &str, help: &str) -> Single {
    let gauge = Single::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// Registers a histogram of seconds.
fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    constructor: fn() -> Histogram,
) -> Histograms {
    let histograms = Histograms::new_with_constructor(constructor);
    registry.register_with_unit(name, help, Unit::Seconds, histograms.clone());
    histograms
}

impl Metrics {
    /// Shows what is known to come as 0, so that its first growth is seen.
    fn begin(&self) {
        for (family, label, values) in [
            (&self.bootstraps, "result", ["success", "failure"]),
            (&self.trials, "verdict", ["promoted", "rolled_back"]),
            (&self.starts, "start", ["cold", "frozen"]),
            (&self.tftp_bytes, "direction", ["put", "fetch"]),
        ] {
            for value in values {
                drop(family.get_or_create(&vec![(label, value.to_owned())]));
            }
        }
    }

    /// Counts a build with an outcome, and observes the duration of its phases.
    pub fn build(&self, build: &Build) {
        let Some(outcome) = build.outcome else { return };
        let machine = ("machine", build.machine.to_string());
        let ran = self.guest_seconds.get_or_create(&vec![machine.clone()]);
        ran.inc_by(guest_seconds_of(&build.phases));
        let labels = vec![machine, ("outcome", outcome.to_string())];
        self.builds.get_or_create(&labels).inc();
        for step in build.phases.windows(2) {
            let lasted = step[1].at.duration_since(step[0].at).as_secs_f64();
            let phase = vec![("phase", step[0].state.to_string())];
            self.phases.get_or_create(&phase).observe(lasted);
        }
    }

    /// Counts a run of a schedule.
    pub fn schedule_run(&self, name: &ScheduleName, result: RunResult) {
        let schedule = ("schedule", name.to_string());
        let labels = vec![schedule, ("result", result.to_string())];
        self.schedule_runs.get_or_create(&labels).inc();
    }

    /// Counts a finished bootstrap and observes its duration.
    pub fn bootstrap(&self, good: bool, lasted: Duration) {
        let result = vec![(
            "result",
            if good { "success" } else { "failure" }.to_owned(),
        )];
        self.bootstraps.get_or_create(&result).inc();
        let histogram = self.bootstrap_seconds.get_or_create(&result);
        histogram.observe(lasted.as_secs_f64());
    }

    /// Counts the end of the trial of a revision.
    pub fn trial(&self, verdict: TrialVerdict) {
        let word = match verdict {
            TrialVerdict::Promoted => "promoted",
            TrialVerdict::RolledBack => "rolled_back",
        };
        let labels = vec![("verdict", word.to_owned())];
        self.trials.get_or_create(&labels).inc();
    }

    /// Counts a start of a guest.
    pub fn start(&self, restored: bool) {
        let start = if restored { "frozen" } else { "cold" };
        self.starts
            .get_or_create(&vec![("start", start.to_owned())])
            .inc();
    }

    /// Counts a failed restore of a checkpoint.
    pub fn restore_failure(&self) {
        self.restore_failures.inc();
    }

    /// Observes the time for which a guest was stopped to be forked.
    pub fn fork(&self, stopped: Duration) {
        let histogram = self.fork_stops.get_or_create(&Vec::new());
        histogram.observe(stopped.as_secs_f64());
    }

    /// Counts the bytes of a transfer.
    pub fn tftp(&self, direction: &'static str, bytes: u64) {
        let labels = vec![("direction", direction.to_owned())];
        self.tftp_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// Counts a request and observes its duration.
    pub fn request(&self, method: &str, route: &str, status: u16, lasted: Duration) {
        let labels = vec![
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
        let labels = vec![("route", route.to_owned())];
        let histogram = self.request_seconds.get_or_create(&labels);
        histogram.observe(lasted.as_secs_f64());
    }

    /// Returns the counters, the gauges of the host and the metrics of the process, in
    /// OpenMetrics, as one text for each registry. Blocks.
    pub fn to_texts(&self, host: &HostGauges<'_>) -> Vec<String> {
        let gauges = self.gauges.lock();
        gauges.set(host);
        let mut text = String::new();
        // Writing into memory cannot fail.
        let _ = encode(&mut text, &gauges.registry);
        vec![text, process::to_text()]
    }
}

/// Returns the seconds in which the phases of a build had a guest.
fn guest_seconds_of(phases: &[Phase]) -> f64 {
    let steps = phases.windows(2);
    let with_guest = steps.filter(|step| step[0].state != State::Queued);
    let seconds = with_guest.map(|step| step[1].at.duration_since(step[0].at).as_secs_f64());
    // A clock may have been set back.
    seconds.map(|seconds| seconds.max(0.0)).sum()
}

fn set(gauges: &Gauges, labels: &Labels, value: f64) {
    gauges.get_or_create(labels).set(value);
}
