//! What a service counts, for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Sizes of batches, doubling.
const BATCH_SIZES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Seconds of a transaction.
const SECONDS: [f64; 10] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0, 10.0,
];

/// The counters of one service.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `get-pr` requests.
    pub get_pr: Counter,
    /// Requests that look only.
    pub look_ups: Counter,
    /// `import-one` requests.
    pub imports: Counter,
    /// `export` requests.
    pub exports: Counter,
    /// What readers asked for in vain.
    pub refusals: Counter,
    /// Values given.
    pub values: Counter,
    batch_sizes: Histogram,
    batch_seconds: Histogram,
    failures: Counter,
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
            "What readers asked for in vain",
            refusals.clone(),
        );
        registry.register("values", "Values given", values.clone());
        registry.register(
            "batch_failures",
            "Transactions that failed",
            failures.clone(),
        );
        let batch_sizes = Histogram::new(BATCH_SIZES);
        registry.register(
            "batch_size",
            "Asks that shared a transaction",
            batch_sizes.clone(),
        );
        let batch_seconds = Histogram::new(SECONDS);
        registry.register(
            "batch_seconds",
            "Duration of transactions, the write to the disk included",
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
        }
    }
}

impl Metrics {
    /// Notes a batch that is on disk.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub(crate) fn note_batch(&self, asks: usize, values: usize, time: Duration) {
        self.batch_sizes.observe(asks as f64);
        self.batch_seconds.observe(time.as_secs_f64());
        self.values.inc_by(values as u64);
    }

    /// Notes a batch that failed.
    pub(crate) fn note_failure(&self) {
        self.failures.inc();
    }

    /// All of them, in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into memory cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
