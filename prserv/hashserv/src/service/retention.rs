//! Deletion by age.

use std::time::Duration;

use jiff::Timestamp;

use super::Maintenance;

/// The limits by which old rows are deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// The age from which tasks are deleted that were not reported since.
    pub task_age_max: Option<Duration>,
    /// The age from which reports are deleted whose tasks have no unihash.
    pub unused_age_max: Option<Duration>,
}

impl Retention {
    /// Returns the deletions that are due at a time.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Maintenance> {
        let before = |age: Duration| now.checked_sub(age).ok();
        let tasks = self.task_age_max.and_then(before).map(Maintenance::expire);
        let unused = self
            .unused_age_max
            .and_then(before)
            .map(Maintenance::clean_unused);
        tasks.into_iter().chain(unused).collect()
    }
}
