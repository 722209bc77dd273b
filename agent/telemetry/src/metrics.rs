//! The counters of the agent, for Prometheus. The PR service has its own.

mod caches;
mod controllers;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use config::ScheduleName;
use config::builds::{Build, ImageState, State, Status};
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

/// The format of the metrics, as a content type.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The last line of the format.
const END: &str = "# EOF\n";

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
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

/// The gauges that are set at each request.
#[derive(Debug)]
struct AgentGauges {
    registry: Registry,
    waiting: Gauges,
    guests: Gauges,
    ready: Gauges,
    on_trial: Gauges,
    notices: Gauges,
    free: Gauges,
    hot_memory: Gauges,
    resources: Gauges,
    resources_used: Gauges,
    pressure: Gauges,
    pressure_high: Gauges,
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

    /// Returns the counters, and gauges of the host, in the text format of OpenMetrics,
    /// without its last line.
    pub fn to_text(&self, host: &HostGauges<'_>) -> String {
        let gauges = self.gauges.lock();
        gauges.set(host);
        let mut text = String::new();
        // Writing into memory cannot fail.
        let _ = encode(&mut text, &gauges.registry);
        text.truncate(text.len() - END.len());
        text
    }
}

/// The state of the host at the time of a request, for gauges.
pub struct HostGauges<'h> {
    /// The builds without an outcome.
    pub unfinished: &'h [Build],
    /// The number of running jobs of each kind.
    pub jobs: [(&'static str, usize); 3],
    /// The status after the scheduler's last round, if there was one.
    pub status: Option<&'h Status>,
    /// The volumes and the state directory, each with its kind and its free bytes.
    pub free: &'h [(&'static str, PathBuf, Option<u64>)],
    /// The number of ready guests.
    pub ready: usize,
    /// The memory of hot images, in bytes.
    pub hot_memory: u64,
    /// The pressure on each resource that the kernel reports: the resource, `some` or `full`,
    /// and the share of time, in hundredths of a percent.
    pub pressure: &'h [(&'static str, &'static str, u32)],
}

impl AgentGauges {
    /// Registers the gauges, and keeps the registry that has all metrics.
    fn new(mut all: Registry) -> Self {
        Self {
            waiting: gauge(&mut all, "builds_unfinished", "Builds without an outcome"),
            guests: gauge(&mut all, "guests", "Running guests"),
            ready: gauge(
                &mut all,
                "machine_ready",
                "1 if a machine can build, else 0",
            ),
            on_trial: gauge(
                &mut all,
                "revision_on_trial",
                "The number of a machine's revision on trial",
            ),
            notices: gauge(
                &mut all,
                "notices",
                "Problems that keep the host from building",
            ),
            free: gauge(&mut all, "free_bytes", "Free space"),
            resources: gauge(&mut all, "resources", "Countable resources of the host"),
            resources_used: gauge(
                &mut all,
                "resources_used",
                "Countable resources that guests have",
            ),
            hot_memory: gauge(
                &mut all,
                "hot_memory_bytes",
                "Memory of checkpoints that guests share",
            ),
            pressure: gauge(
                &mut all,
                "pressure_ratio",
                "Share of the last ten seconds in which programs of the host were stalled",
            ),
            pressure_high: gauge(
                &mut all,
                "pressure_high",
                "1 if no guest starts beside another one for this pressure, else 0",
            ),
            registry: all,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "the values are far smaller")]
    fn set(&self, host: &HostGauges<'_>) {
        for (state, word) in State::ALL {
            let count = host
                .unfinished
                .iter()
                .filter(|build| build.state == state)
                .count();
            if state != State::Finished {
                set(
                    &self.waiting,
                    &vec![("state", word.to_owned())],
                    count as f64,
                );
            }
        }
        for (job, count) in host.jobs {
            set(&self.guests, &vec![("job", job.into())], count as f64);
        }
        if let Some(status) = host.status {
            // Machines come and go.
            self.ready.clear();
            for it in &status.machines {
                let machine = ("machine", it.machine.to_string());
                let labels = vec![machine, ("toolchain", it.toolchain.to_string())];
                let ready = matches!(it.image, ImageState::Ready | ImageState::Outdated);
                set(&self.ready, &labels, f64::from(u8::from(ready)));
            }
            self.on_trial.clear();
            for it in &status.trials {
                let labels = vec![("machine", it.machine.to_string())];
                set(&self.on_trial, &labels, f64::from(it.revision.0));
            }
            set(&self.notices, &Vec::new(), status.notices.len() as f64);
            for (name, load) in &status.resources {
                let labels = vec![("resource", name.to_string())];
                set(
                    &self.resources,
                    &labels,
                    load.total.unwrap_or_default() as f64,
                );
                set(&self.resources_used, &labels, load.taken as f64);
            }
            self.pressure_high.clear();
            for it in &status.pressure {
                let labels = vec![("resource", it.resource.file().to_owned())];
                let high = f64::from(u8::from(it.high_since.is_some()));
                set(&self.pressure_high, &labels, high);
            }
        }
        self.pressure.clear();
        for (resource, stall, hundredths) in host.pressure {
            let labels = vec![
                ("resource", (*resource).to_owned()),
                ("stall", (*stall).to_owned()),
            ];
            set(&self.pressure, &labels, f64::from(*hundredths) / 10_000.0);
        }
        set(
            &self.guests,
            &vec![("job", "ready".into())],
            host.ready as f64,
        );
        set(&self.hot_memory, &Vec::new(), host.hot_memory as f64);
        for (kind, path, bytes) in host.free {
            self.set_free(kind, path, *bytes);
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the error is below a byte in 2^53"
    )]
    fn set_free(&self, kind: &str, path: &Path, bytes: Option<u64>) {
        let labels = vec![
            ("kind", kind.to_owned()),
            ("path", path.display().to_string()),
        ];
        match bytes {
            Some(bytes) => set(&self.free, &labels, bytes as f64),
            None => drop(self.free.remove(&labels)),
        }
    }
}

fn set(gauges: &Gauges, labels: &Labels, value: f64) {
    gauges.get_or_create(labels).set(value);
}
