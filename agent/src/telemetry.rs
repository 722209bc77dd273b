//! Events and counters.

pub mod events;
pub mod metrics;
