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
    /// Hashes that were looked up.
    pub look_ups: Counter,
    /// Reports of tasks.
    pub reports: Counter,
    /// Requests that were refused.
    pub refusals: Counter,
    /// Deleted unihashes.
    pub deleted: Counter,
    batches: BatchMetrics,
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
        let batches = BatchMetrics::register(&mut registry, "Changes per transaction");
        Self {
            registry,
            look_ups,
            reports,
            refusals,
            deleted,
            batches,
        }
    }
}

impl Metrics {
    /// Records a batch that is on disk.
    pub(crate) fn record_batch(&self, changes: usize, duration: Duration) {
        self.batches.record(changes, duration);
    }

    /// Records a batch that failed.
    pub(crate) fn record_failure(&self) {
        self.batches.record_failure();
    }

    /// Returns all counters in the text format of OpenMetrics.
    pub fn to_text(&self) -> String {
        batch_metrics::to_text(&self.registry)
    }
}
