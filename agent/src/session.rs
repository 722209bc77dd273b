//! A guest with everything around it: its network, the servers at its gateway, the
//! capture of its output, and its limits.
//!
//! Bootstraps, builds and debug sessions differ in the files that they offer and in the
//! limits that they set; the rest of a guest's life is here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::MachineName;
use config::builds::Usage;
use config::machine::Machine;
use config::task::{BREAKPOINT, RESUME};
use store::Snapshot;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::blocking;
use guest::network::{Network, NetworkError};
use guest::{BootMode, Exit, Guest, GuestError, QmpError};

pub mod console;
mod egress;
mod gateway;
mod guest_services;
pub mod handshake;
pub mod idle_timeout;
pub mod log_capture;
mod orphans;
mod start;

pub use egress::EgressError;
pub use guest_services::GuestServices;
pub use orphans::{bytes_written, end_orphans, guests_directory, is_running, resume};

use gateway::Gateway;
use orphans::{log_failure, tear_down};

/// The time in which events of a guest that has ended may still arrive.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);
/// The time in which a guest must shut down after it has put its result.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// A reason why a guest could not be started or adopted.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its network namespace failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its process failed.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Its egress policy is refused or failed.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// The machine brings options, which the host forbids.
    #[error(
        "the machine's manifest brings `options`, which can hand any file of this host to \
         a guest; if you trust the machine, set guests.options to \"allow\""
    )]
    Options,
    /// QEMU does not answer or refuses.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// The guest to adopt or to resume has ended.
    #[error("the guest has ended")]
    Gone,
    /// A file or a socket of the agent failed.
    #[error("cannot prepare the guest")]
    Prepare(#[from] std::io::Error),
}

/// The guest to start.
pub struct SessionSpec {
    /// Its short name on this host: part of its network's and its run directory's name.
    pub tag: String,
    /// The snapshot that it boots from.
    pub snapshot: Arc<Snapshot>,
    /// Its machine's manifest.
    pub machine: Machine,
    /// The files that it may fetch and put.
    pub map: tftp::server::Namespace,
    /// Flushes its disk to the host's: the disk is kept afterwards.
    pub durable: bool,
    /// The way in which it boots.
    pub boot: BootMode,
    /// The files that receive its output.
    pub capture: log_capture::CaptureFiles,
}

/// The guest of an earlier agent to adopt.
pub struct AdoptSpec {
    /// Its short name on this host.
    pub tag: String,
    /// Its machine.
    pub machine: MachineName,
    /// The files that it may fetch and put.
    pub map: tftp::server::Namespace,
    /// The files that receive its output.
    pub capture: log_capture::CaptureFiles,
    /// The time since its start.
    pub elapsed: Duration,
    /// Set if its first packet has arrived.
    pub contacted: bool,
}

/// The limits of a session, and its end.
pub struct SessionLimits<'a> {
    /// The time limits.
    pub times: config::limits::Limits,
    /// The files that each complete the session when the guest has put one.
    pub result_files: &'a [&'a str],
}

/// A step of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest's first packet arrived.
    FirstContact,
    /// The guest put a result file.
    ResultReceived,
    /// The guest waits for its task, and a checkpoint of it can be saved.
    Ready,
    /// The guest reported a change at its breakpoint.
    Breakpoint,
    /// The pause of the guest has expired.
    PauseExpired,
}

/// A reason why a session ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestFailure {
    /// No packet of the guest arrived in time.
    #[error("the guest did not answer within {} s of its start", .0.as_secs())]
    StartTimeout(Duration),
    /// The guest showed no activity for too long.
    #[error("nothing was heard of the guest for {} s: no packet, no log, nothing on its console", .0.as_secs())]
    IdleTimeout(Duration),
    /// The guest exceeded its total time.
    #[error("the guest took longer than {} s", .0.as_secs())]
    TotalTimeout(Duration),
    /// The guest's process ended.
    #[error(
        "the guest ended before it had put its result ({exit}){}",
        guest::said(stderr)
    )]
    Exited {
        /// Its exit status.
        exit: Exit,
        /// The end of its standard error.
        stderr: String,
    },
    /// The session was cancelled.
    #[error("it was cancelled")]
    Cancelled,
    /// The guest was ended because a disk of the host is nearly full.
    #[error("the volume {} is nearly full, and this guest had written most there", .0.display())]
    DiskFull(PathBuf),
    /// The agent that ran the guest ended.
    #[error("the host agent was ended while it ran")]
    AgentGone,
}

/// A running guest with its services.
pub struct Session {
    guest: Arc<Guest>,
    network: Network,
    gateway: Gateway,
    started: Instant,
    contacted: bool,
    pause: Option<Pause>,
    run_dir: PathBuf,
}

/// A time in which a guest waits for a person.
#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Instant,
    until: Instant,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("run_dir", &self.run_dir)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Waits for the next event, or for the failure that ends the session. Cancel-safe.
    pub async fn next(
        &mut self,
        limits: &SessionLimits<'_>,
        cancel: &CancellationToken,
    ) -> Result<GuestEvent, GuestFailure> {
        let (due, timeout) = self.deadline(limits);
        let is_idle_limited = self.contacted && self.pause.is_none();
        let deadline = tokio::time::sleep_until(due);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(GuestFailure::Cancelled),
                Some(event) = self.gateway.events.recv() => {
                    if let Some(event) = self.handle_event(event, limits) {
                        return Ok(event);
                    }
                }
                () = gateway::ready(&mut self.gateway.ready) => return Ok(GuestEvent::Ready),
                exit = self.guest.exited() => {
                    let failure = GuestFailure::Exited { exit, stderr: self.guest.complaints() };
                    return self.drain_events(limits).await.ok_or(failure);
                }
                () = self.gateway.idle.lasts(limits.times.idle, &self.network), if is_idle_limited => {
                    return Err(GuestFailure::IdleTimeout(limits.times.idle));
                }
                () = &mut deadline => return timeout.map_or(Ok(GuestEvent::PauseExpired), Err),
            }
        }
    }

    /// Returns the next deadline and the failure that it means; none for a pause.
    fn deadline(&self, limits: &SessionLimits<'_>) -> (Instant, Option<GuestFailure>) {
        match self.pause {
            Some(pause) => (pause.until, None),
            None if self.contacted => {
                let limit = limits.times.total;
                (
                    self.started + limit,
                    Some(GuestFailure::TotalTimeout(limit)),
                )
            }
            None => {
                let limit = limits.times.start;
                (
                    self.started + limit,
                    Some(GuestFailure::StartTimeout(limit)),
                )
            }
        }
    }

    /// Suspends all limits until `until`, for a guest that waits for a person.
    pub fn pause(&mut self, until: Instant) {
        let since = Instant::now();
        self.pause.get_or_insert(Pause { since, until });
    }

    /// Ends a pause. Its time does not count as the guest's.
    pub fn resume(&mut self) {
        if let Some(pause) = self.pause.take() {
            self.started += pause.since.elapsed();
            self.gateway.idle.last.renew();
        }
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// When QEMU does not answer, or the guest is a container.
    pub async fn suspend(&self) -> Result<(), QmpError> {
        self.guest.suspend().await
    }

    /// Waits until the guest's process has ended. Cancel-safe.
    pub async fn exited(&self) -> Exit {
        self.guest.exited().await
    }

    /// Returns the first event of those that the guest sent before it ended.
    async fn drain_events(&mut self, limits: &SessionLimits<'_>) -> Option<GuestEvent> {
        while let Ok(Some(event)) = timeout(DRAIN_LIMIT, self.gateway.events.recv()).await {
            if let Some(event) = self.handle_event(event, limits) {
                return Some(event);
            }
        }
        None
    }

    fn handle_event(
        &mut self,
        event: tftp::server::Event,
        limits: &SessionLimits<'_>,
    ) -> Option<GuestEvent> {
        match event {
            tftp::server::Event::FirstContact if !self.contacted => {
                self.contacted = true;
                Some(GuestEvent::FirstContact)
            }
            tftp::server::Event::FirstContact => None,
            tftp::server::Event::Put { name, bytes, .. } => {
                self.gateway.metrics.tftp("put", bytes);
                if limits.result_files.contains(&name.as_str()) {
                    return Some(GuestEvent::ResultReceived);
                }
                info!(name, bytes, "the guest put a file");
                (name == BREAKPOINT).then_some(GuestEvent::Breakpoint)
            }
            tftp::server::Event::Fetched { name, bytes } => {
                self.gateway.metrics.tftp("fetch", bytes);
                info!(name, bytes, "the guest fetched a file");
                None
            }
            // A guest at its breakpoint polls for this file.
            tftp::server::Event::Refused { name, .. } if name == RESUME => None,
            tftp::server::Event::Refused { name, reason } => {
                warn!(name, %reason, "the guest was refused a file");
                None
            }
        }
    }

    /// Returns the resources that the guest has used so far.
    pub async fn usage(&self) -> Usage {
        let guest = Arc::clone(&self.guest);
        blocking(move || guest.usage()).await
    }

    /// Waits until the guest has shut down, and ends it if it does not. Returns true if it
    /// shut down by itself: only then its disk is consistent.
    pub async fn shut_down(self) -> bool {
        let exit = timeout(SHUTDOWN_LIMIT, self.guest.exited()).await;
        if exit.is_err() {
            warn!("the guest does not shut down; ending it");
            log_failure(self.guest.stop(SHUTDOWN_LIMIT).await);
        }
        debug!("the guest's process has ended");
        self.tear_down().await;
        exit.is_ok_and(Exit::is_clean)
    }

    /// Saves a checkpoint of the guest in its directory, and ends the guest.
    ///
    /// # Errors
    /// When the checkpoint cannot be saved; the guest has ended then, too.
    pub async fn checkpoint(self, directory: &Path) -> Result<(), SessionError> {
        let saved = self.guest.freeze(directory).await;
        self.tear_down().await;
        Ok(saved?)
    }

    /// Kills the guest.
    pub async fn kill(self) {
        log_failure(self.guest.end().await);
        self.tear_down().await;
    }

    async fn tear_down(self) {
        let (network, run_dir) = (self.network, self.run_dir);
        blocking(move || tear_down(network, &run_dir)).await;
    }

    /// Leaves the guest running for the next agent to adopt.
    pub fn leave(self) {
        info!("leaving the guest to the next agent");
    }
}
