//! The async side of a guest: its end as an event, and its blocking operations behind the
//! door.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use guest::{Exit, Guest, GuestEnd, Shutdown};
use sys::blocking::blocking;
use tokio::io::unix::AsyncFd;

/// A guest of which async code may wait for the end.
#[derive(Debug)]
pub(super) struct GuestHandle {
    guest: Arc<Guest>,
    pidfd: AsyncFd<OwnedFd>,
}

impl GuestHandle {
    /// Registers the guest's process with the runtime. Must be called in a tokio runtime.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; an OwnedFd keeps the promise"
    )]
    pub(super) fn new(guest: Arc<Guest>) -> io::Result<Self> {
        let pidfd = guest.pidfd().try_clone_to_owned()?;
        Ok(Self {
            guest,
            pidfd: AsyncFd::new(pidfd)?,
        })
    }

    /// Runs a blocking operation of the guest.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Guest) -> T + Send + 'static,
    ) -> T {
        let guest = Arc::clone(&self.guest);
        blocking(move || operation(&guest)).await
    }

    /// Waits until the guest's process has ended. Cancel-safe, and may be called again.
    pub(super) async fn exited(&self) -> Exit {
        // The descriptor stays readable from the end on. The runtime fails when it shuts down.
        if self.pidfd.readable().await.is_err() {
            return Exit::Unknown;
        }
        let exit = self.run(|guest| guest.wait(Duration::ZERO)).await;
        exit.unwrap_or(Exit::Unknown)
    }

    /// Returns the end of the guest, of which QEMU has reported `shutdown`.
    pub(super) fn end(&self, exit: Exit, shutdown: Option<Shutdown>) -> GuestEnd {
        self.guest.end(exit, shutdown)
    }

    /// Returns the end of the standard error of the guest's program since the last call.
    pub(super) fn take_stderr(&self) -> String {
        self.guest.take_stderr()
    }
}
