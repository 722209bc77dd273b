//! The counters of a service, in the format of Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Histogram buckets for the number of changes in a batch.
const BATCH_SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Histogram buckets for the duration of a transaction in seconds.
const SECONDS_BUCKETS: [f64; 10] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0, 10.0,
];

/// The counters of one service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Hashes that were looked up.
    pub look_ups: Counter,
    /// Reports of tasks.
    pub reports: Counter,
    /// Requests that were refused.
    pub refusals: Counter,
    /// Deleted unihashes.
    pub deleted: Counter,
    batch_sizes: Histogram,
    batch_seconds: Histogram,
    failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hashserv");
        let requests: Family<Vec<(&str, &str)>, Counter<u64, AtomicU64>> = Family::default();
        let request = |kind| requests.get_or_create(&vec![("kind", kind)]).clone();
        let (look_ups, reports) = (request("look-up"), request("report"));
        registry.register("requests", "Looked up hashes and reports", requests.clone());
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let refusals = counter(&mut registry, "refusals", "Requests that were refused");
        let deleted = counter(&mut registry, "deleted", "Deleted unihashes");
        let failures = counter(&mut registry, "batch_failures", "Failed transactions");
        let batch_sizes = Histogram::new(BATCH_SIZE_BUCKETS);
        registry.register("batch_size", "Changes per transaction", batch_sizes.clone());
        let batch_seconds = Histogram::new(SECONDS_BUCKETS);
        registry.register(
            "batch_seconds",
            "Duration of a transaction including the write to disk",
            batch_seconds.clone(),
        );
        Self {
            registry,
            look_ups,
            reports,
            refusals,
            deleted,
            batch_sizes,
            batch_seconds,
            failures,
        }
    }
}

impl Metrics {
    /// Records a batch that is on disk.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub(crate) fn record_batch(&self, changes: usize, duration: Duration) {
        self.batch_sizes.observe(changes as f64);
        self.batch_seconds.observe(duration.as_secs_f64());
    }

    /// Records a batch that failed.
    pub(crate) fn record_failure(&self) {
        self.failures.inc();
    }

    /// Returns all counters in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
