//! Telemetry: events for subscribers, and counters for Prometheus.

pub mod events;
pub mod metrics;

use std::sync::Arc;

use events::Events;
use metrics::Metrics;

/// The events and the counters of an agent. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// The events for subscribers.
    pub events: Arc<Events>,
    /// The counters.
    pub metrics: Arc<Metrics>,
}
