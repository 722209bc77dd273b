//! The counters of a service, in the format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use linerpc::batch_metrics::{self, BatchMetrics};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The counters of one service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `get-pr` requests.
    pub get_pr: Counter,
    /// Requests that only read.
    pub look_ups: Counter,
    /// `import-one` requests.
    pub imports: Counter,
    /// `export` requests.
    pub exports: Counter,
    /// Requests of readers for tuples without a recorded value.
    pub refusals: Counter,
    /// Assigned or imported values.
    pub values: Counter,
    batches: BatchMetrics,
    audit_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("prserv");
        let requests: Family<Vec<(&str, &str)>, Counter<u64, AtomicU64>> = Family::default();
        let request = |kind| requests.get_or_create(&vec![("kind", kind)]).clone();
        let (get_pr, look_ups) = (request("get-pr"), request("look-up"));
        let (imports, exports) = (request("import-one"), request("export"));
        registry.register("requests", "Requests by kind", requests.clone());
        let (refusals, values) = (Counter::default(), Counter::default());
        registry.register(
            "refusals",
            "Requests of readers for tuples without a recorded value",
            refusals.clone(),
        );
        registry.register("values", "Assigned or imported values", values.clone());
        let audit_failures = Counter::default();
        registry.register(
            "audit_failures",
            "Batches whose lines could not be written to the audit log",
            audit_failures.clone(),
        );
        let batches = BatchMetrics::register(&mut registry, "Queries per transaction");
        Self {
            registry,
            get_pr,
            look_ups,
            imports,
            exports,
            refusals,
            values,
            batches,
            audit_failures,
        }
    }
}

impl Metrics {
    /// Records a batch that is on disk.
    pub(crate) fn record_batch(&self, queries: usize, values: usize, duration: Duration) {
        self.batches.record(queries, duration);
        self.values.inc_by(values as u64);
    }

    /// Records a batch that failed.
    pub(crate) fn record_failure(&self) {
        self.batches.record_failure();
    }

    /// Records a batch whose lines could not be written to the audit log.
    pub(crate) fn record_audit_failure(&self) {
        self.audit_failures.inc();
    }

    /// Returns all counters in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        batch_metrics::to_text(&self.registry)
    }
}
