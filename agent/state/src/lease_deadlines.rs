//! The times until which guarded builds may run.

use std::collections::BTreeMap;

use config::BuildId;
use guard::Deadline;
use parking_lot::Mutex;

/// The deadlines of the builds whose leases are in use. A guarded build without one does not start.
#[derive(Debug, Default)]
pub struct LeaseDeadlines(Mutex<BTreeMap<BuildId, Deadline>>);

impl LeaseDeadlines {
    /// Sets or moves the deadline of a build.
    pub fn set(&self, build: BuildId, deadline: Deadline) {
        self.0.lock().insert(build, deadline);
    }

    /// Forgets a build, which cannot start any more.
    pub fn remove(&self, build: BuildId) {
        self.0.lock().remove(&build);
    }

    /// Returns the deadline of a build.
    pub fn get(&self, build: BuildId) -> Option<Deadline> {
        self.0.lock().get(&build).copied()
    }
}
