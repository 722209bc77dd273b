//! The messages of a coordinator to its service manager, by the protocol of `sd_notify(3)`. Without a
//! service manager that listens, nothing is sent.

use std::error::Error;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::sleep;
use tracing::warn;

/// The time between two signs of life.
const ALIVE: Duration = Duration::from_secs(10);

/// Reports that the coordinator serves hosts and clients.
pub(crate) fn ready() {
    send(NotifyState::Ready);
}

/// Reports that the coordinator is stopping.
pub(crate) fn stopping() {
    send(NotifyState::Stopping);
}

/// Reports again and again that tasks of the runtime make progress, which restarts the time of the watchdog.
pub(crate) async fn alive() {
    loop {
        send(NotifyState::Watchdog);
        sleep(ALIVE).await;
    }
}

fn send(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        let error = &error as &dyn Error;
        warn!(error, "cannot report to the service manager");
    }
}
