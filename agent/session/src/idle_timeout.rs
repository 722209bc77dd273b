//! The idle timeout: a guest is idle when no byte arrives from its console or its log, and no
//! request or step of a transfer at the servers of its gateway.
//!
//! Other packets do not count: time daemons, resolvers and DHCP clients send some for ever,
//! also in a guest whose build hangs. Nor does traffic through the egress, because it may be theirs;
//! a build that downloads for so long prints something.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sys::observer::Observer;
use tokio::time::{Instant, sleep_until};

/// The time of a guest's last activity. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    /// Records activity now.
    pub(super) fn record(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Returns an observer that records activity.
    pub(super) fn observer(&self) -> Observer {
        let activity = self.clone();
        Observer::new(move || activity.record())
    }

    /// Resolves once no activity has been recorded for `limit`. Cancel-safe.
    pub(super) async fn absent_for(&self, limit: Duration) {
        loop {
            let due = *self.0.lock() + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);
    /// A little less than the limit.
    const PAUSE: Duration = Duration::from_secs(59);

    #[tokio::test(start_paused = true)]
    async fn the_limit_begins_again_with_each_activity() {
        let activity = Activity::default();
        let observer = activity.observer();
        let start = Instant::now();
        let guest = async {
            for _ in 0..10 {
                sleep(PAUSE).await;
                observer.observe();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = activity.absent_for(LIMIT) => {}
            () = guest => {}
        }
        assert_eq!(start.elapsed(), 10 * PAUSE + LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_dropped_forgets_nothing() {
        let activity = Activity::default();
        let start = Instant::now();
        for _ in 0..59 {
            let waited = timeout(Duration::from_secs(1), activity.absent_for(LIMIT)).await;
            assert!(waited.is_err());
        }
        activity.absent_for(LIMIT).await;
        assert_eq!(start.elapsed(), LIMIT);
    }
}
