//! The idle timeout: a guest is idle when no byte arrives from its console or its log, and
//! no packet from its network.

use std::sync::Arc;
use std::time::Duration;

use guest::network::Network;
use parking_lot::Mutex;
use sys::blocking::blocking;
use tokio::time::{Instant, sleep_until};

/// The number of times that packets are counted within one limit.
const CHECKS: u32 = 8;

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

    fn last(&self) -> Instant {
        *self.0.lock()
    }
}

/// The timer of a guest's idle timeout.
#[derive(Debug, Default)]
pub(super) struct IdleTimer {
    /// The guest's last activity.
    pub(super) activity: Activity,
    packets: u64,
}

impl IdleTimer {
    /// Resolves once no activity has been seen for `limit`. Cancel-safe.
    pub(super) async fn expired(&mut self, limit: Duration, network: &Arc<Network>) {
        loop {
            let due = self.activity.last() + limit;
            sleep_until(due.min(Instant::now() + limit / CHECKS)).await;
            let network = Arc::clone(network);
            // A network that cannot be read shows no activity.
            let packets = blocking(move || network.packets()).await;
            let packets = packets.unwrap_or(self.packets);
            if packets != self.packets {
                self.packets = packets;
                self.activity.record();
            }
            if self.activity.last() + limit <= Instant::now() {
                return;
            }
        }
    }
}
