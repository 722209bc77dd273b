//! The status that the scheduler publishes.

use std::collections::BTreeMap;

use config::builds::Resources;
use config::{BuildId, ImageKey};
use planner::{Capacity, ResourceRequest};

/// The queue as the last round of the scheduler saw it.
#[derive(Debug, Clone, Default)]
pub struct QueueSnapshot {
    /// The resources of the host.
    pub capacity: Capacity,
    /// The resource requests of guests.
    pub requests: BTreeMap<ImageKey, ResourceRequest>,
    /// The builds that are ready to start, in scheduling order.
    pub order: Vec<BuildId>,
}

impl QueueSnapshot {
    /// Returns the resource request of a guest whose build asks for `resources`.
    pub fn request(&self, key: &ImageKey, resources: Option<&Resources>) -> ResourceRequest {
        let request = self.requests.get(key).cloned().unwrap_or_default();
        match resources {
            Some(resources) => request.with(resources),
            None => request,
        }
    }
}
