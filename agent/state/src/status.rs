//! The status that the scheduler publishes.

use std::sync::Arc;

use config::builds::Resources;
use config::{BuildId, ImageKey};
use planner::{Observed, ResourceRequest};

/// The queue as the last round of the scheduler saw it.
#[derive(Debug, Clone, Default)]
pub struct QueueSnapshot {
    /// The observation that the round planned from.
    pub observed: Arc<Observed>,
    /// The builds that are ready to start, in scheduling order.
    pub order: Vec<BuildId>,
}

impl QueueSnapshot {
    /// Returns the resource request of a guest whose build asks for `resources`.
    pub fn request(&self, key: &ImageKey, resources: Option<&Resources>) -> ResourceRequest {
        let request = self.observed.requests.get(key).cloned().unwrap_or_default();
        match resources {
            Some(resources) => request.with(resources),
            None => request,
        }
    }
}
