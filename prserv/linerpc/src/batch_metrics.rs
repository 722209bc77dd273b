//! The counters of a writer that commits in batches, in the format of Prometheus.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Histogram buckets for the size of a batch.
const SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Histogram buckets for the duration of a transaction in seconds.
const SECONDS_BUCKETS: [f64; 10] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1, 1.0, 10.0,
];

/// The counters of the batches of one writer.
#[derive(Debug)]
pub struct BatchMetrics {
    sizes: Histogram,
    seconds: Histogram,
    failures: Counter,
}

impl BatchMetrics {
    /// Registers the counters `batch_failures`, `batch_size` and `batch_seconds`. `size_help`
    /// describes the size.
    pub fn register(registry: &mut Registry, size_help: &str) -> Self {
        let failures = Counter::default();
        registry.register("batch_failures", "Failed transactions", failures.clone());
        let sizes = Histogram::new(SIZE_BUCKETS);
        registry.register("batch_size", size_help, sizes.clone());
        let seconds = Histogram::new(SECONDS_BUCKETS);
        registry.register(
            "batch_seconds",
            "Duration of a transaction including the write to disk",
            seconds.clone(),
        );
        Self {
            sizes,
            seconds,
            failures,
        }
    }

    /// Records a batch that is on disk.
    #[expect(clippy::cast_precision_loss, reason = "batches are small")]
    pub fn record(&self, size: usize, duration: Duration) {
        self.sizes.observe(size as f64);
        self.seconds.observe(duration.as_secs_f64());
    }

    /// Records a batch that failed.
    pub fn record_failure(&self) {
        self.failures.inc();
    }
}

/// Returns all counters of a registry in the text format of OpenMetrics.
pub fn to_text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, registry);
    text
}
