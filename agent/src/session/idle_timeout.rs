//! Notices when nothing comes from a guest any more: no byte of its console or its
//! log, and no packet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use guest::network::Network;

/// How often packets are counted while a limit lasts.
const LOOKS: u32 = 8;

/// When something last came from a guest. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<Instant>>);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Activity {
    /// Something has come.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn get(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens for a guest's silence.
#[derive(Debug, Default)]
pub struct IdleTimer {
    /// The last sign, for those who hear the guest.
    pub last: Activity,
    packets: u64,
}

impl IdleTimer {
    /// Waits until nothing has come for so long. May be called again.
    pub async fn lasts(&mut self, limit: Duration, network: &Network) {
        loop {
            let due = self.last.get() + limit;
            sleep_until(due.min(Instant::now() + limit / LOOKS)).await;
            // A network that cannot be looked into is no sign of life.
            let packets = network.packets().unwrap_or(self.packets);
            if packets != self.packets {
                self.packets = packets;
                self.last.renew();
            }
            if self.last.get() + limit <= Instant::now() {
                return;
            }
        }
    }
}
