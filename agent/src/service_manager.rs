//! The messages of the agent to its service manager, by the protocol of `sd_notify(3)`. Without a
//! service manager that listens, nothing is sent.

use sd_notify::NotifyState;
use tracing::warn;

/// Reports that the agent serves its clients.
pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Reports that the agent is stopping.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Reports that the scheduler makes progress, which restarts the watchdog's time.
pub(crate) fn alive() {
    send(&[NotifyState::Watchdog]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(
            error = &error as &dyn std::error::Error,
            "cannot report to the service manager"
        );
    }
}
