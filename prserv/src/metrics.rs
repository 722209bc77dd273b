//! The counters of a service, in the format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Histogram buckets for the number of queries in a batch.
const BATCH_SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Histogram buckets for the duration of a transaction in seconds.
const SECONDS_BUCKETS: [f64; 10] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0, 10.0,
];

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
    batch_sizes: Histogram,
    batch_seconds: Histogram,
    failures: Counter,
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
        let (refusals, values, failures) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register(
            "refusals",
            "Requests of readers for tuples without a recorded value",
            refusals.clone(),
        );
        registry.register("values", "Assigned or imported values", values.clone());
        registry.register("batch_failures", "Failed transactions", failures.clone());
        let audit_failures = Counter::default();
        registry.register(
            "audit_failures",
            "Batches whose lines could not be written to the audit log",
            audit_failures.clone(),
        );
        let batch_sizes = Histogram::new(BATCH_SIZE_BUCKETS);
        registry.register("batch_size", "Queries per transaction", batch_sizes.clone());
        let batch_seconds = Histogram::new(SECONDS_BUCKETS);
        registry.register(
            "batch_seconds",
            "Duration of a transaction including the write to disk",
            batch_seconds.clone(),
        );
        Self {
            registry,
            get_pr,
            look_ups,
            imports,
            exports,
            refusals,
            values,
            batch_sizes,
            batch_seconds,
            failures,
            audit_failures,
        }
    }
}

impl Metrics {
    /// Records a batch that is on disk.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub(crate) fn record_batch(&self, queries: usize, values: usize, duration: Duration) {
        self.batch_sizes.observe(queries as f64);
        self.batch_seconds.observe(duration.as_secs_f64());
        self.values.inc_by(values as u64);
    }

    /// Records a batch that failed.
    pub(crate) fn record_failure(&self) {
        self.failures.inc();
    }

    /// Records a batch whose lines could not be written to the audit log.
    pub(crate) fn record_audit_failure(&self) {
        self.audit_failures.inc();
    }

    /// Returns all counters in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
