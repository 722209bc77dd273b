//! A guest with everything around it: its network, what it may fetch and put, the
//! PR service at its gateway, and the recording of what it prints.
//!
//! Bootstraps and builds differ only in what they offer and in what ends them; the
//! rest of a guest's life is here.

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

use guest::network::{Network, NetworkError};
use guest::{self, Exit, Guest, GuestError, Memory, MonitorError};
use tftp;

pub mod console;
mod egress;
pub mod handshake;
pub mod idle_timeout;
pub mod log_capture;
mod orphans;
mod services;
mod start;

pub use egress::WayError;
pub use orphans::{bytes_written, clear, guests_directory, is_running, wake};

use orphans::{complain, tear_down};
use services::Services;

/// How long we listen to a guest that has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long a guest may take to shut itself down after it has said its last word.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(20);

/// Why a guest could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Its network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Its process.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// What it may reach.
    #[error(transparent)]
    Way(#[from] WayError),
    /// The machine wants more than the host allows.
    #[error(
        "the machine's manifest brings `options`, which can hand any file of this host to \
         a guest; if you trust the machine, set guests.options to \"allow\""
    )]
    Options,
    /// It does not answer.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// It was to be taken up.
    #[error("the guest is gone")]
    Gone,
    /// A file or a socket of ours.
    #[error("cannot prepare the guest: {0}")]
    Prepare(#[from] std::io::Error),
}

/// What a guest is to be.
pub struct Plan {
    /// Its short name on this host: part of its network's and its directory's name.
    pub tag: String,
    /// Where it runs.
    pub snapshot: Arc<Snapshot>,
    /// What it is.
    pub machine: Machine,
    /// What it may fetch and put.
    pub map: tftp::Map,
    /// Whether its disk is kept afterwards.
    pub durable: bool,
    /// Whether it is a new one, one to be frozen, or a frozen one to be woken.
    pub memory: Memory,
    /// Where what it prints is recorded.
    pub record: log_capture::Files,
}

/// A guest that an earlier agent left running.
pub struct Left {
    /// Its short name on this host.
    pub tag: String,
    /// Its machine.
    pub machine: MachineName,
    /// What it may fetch and put.
    pub map: tftp::Map,
    /// Where what it prints is recorded.
    pub record: log_capture::Files,
    /// How long ago it was started.
    pub since: Duration,
    /// Whether its first packet has come.
    pub heard: bool,
}

/// How far a guest may go.
pub struct Limits<'a> {
    /// How long it may take.
    pub guest: config::limits::Limits,
    /// The files of which any ends it when it arrives.
    pub last_put: &'a [&'a str],
}

/// Something that a session waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// Its first packet came.
    FirstContact,
    /// It has put the file that ends it.
    Done,
    /// It waits for its task, and can be frozen.
    Ready,
    /// It has told something of its breakpoint.
    Breakpoint,
    /// It has waited at its breakpoint as long as it may.
    Waited,
}

/// Why a session ended before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Nothing came from it in time.
    #[error("the guest did not answer within {} s of its start", .0.as_secs())]
    Silent(Duration),
    /// Nothing came from it any more.
    #[error("nothing was heard of the guest for {} s: no packet, no log, nothing on its console", .0.as_secs())]
    Quiet(Duration),
    /// It took too long.
    #[error("the guest took longer than {} s", .0.as_secs())]
    Late(Duration),
    /// Its process ended, and complained about something, perhaps.
    #[error(
        "the guest ended before it had put its result ({exit}){}",
        guest::said(said)
    )]
    Exited {
        /// How.
        exit: Exit,
        /// The last of it.
        said: String,
    },
    /// Somebody wanted it ended.
    #[error("it was cancelled")]
    Cancelled,
    /// It had written most where the host has too little room left.
    #[error("the volume {} is nearly full, and this guest had written most there", .0.display())]
    Full(PathBuf),
    /// The agent that ran it was ended.
    #[error("the host agent was ended while it ran")]
    Left,
}

/// A guest that runs.
pub struct Session {
    guest: Guest,
    network: Network,
    services: Services,
    started: Instant,
    heard: bool,
    pause: Option<Pause>,
    run: PathBuf,
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
            .field("run", &self.run)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Waits for the next thing that matters.
    pub async fn next(
        &mut self,
        limits: &Limits<'_>,
        cancel: &CancellationToken,
    ) -> Result<GuestEvent, Ended> {
        let (due, ended) = match self.pause {
            Some(pause) => (pause.until, None),
            None if self.heard => {
                let limit = limits.guest.total;
                (self.started + limit, Some(Ended::Late(limit)))
            }
            None => {
                let limit = limits.guest.start;
                (self.started + limit, Some(Ended::Silent(limit)))
            }
        };
        let may_be_silent = !self.heard || self.pause.is_some();
        let deadline = tokio::time::sleep_until(due);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Ended::Cancelled),
                Some(event) = self.services.events.recv() => {
                    if let Some(happening) = self.weigh(event, limits) {
                        return Ok(happening);
                    }
                }
                () = services::ready(&mut self.services.ready) => return Ok(GuestEvent::Ready),
                exit = self.guest.exited() => {
                    let ended = Ended::Exited { exit, said: self.guest.complaints() };
                    return self.last_words(limits).await.ok_or(ended);
                }
                () = self.services.silence.lasts(limits.guest.idle, &self.network), if !may_be_silent => {
                    return Err(Ended::Quiet(limits.guest.idle));
                }
                () = &mut deadline => return ended.map_or(Ok(GuestEvent::Waited), Err),
            }
        }
    }

    /// Lets the guest wait for a person: no limit counts but this.
    pub fn pause(&mut self, until: Instant) {
        let since = Instant::now();
        self.pause.get_or_insert(Pause { since, until });
    }

    /// Lets the limits count again; the pause is none of the guest's time.
    pub fn resume(&mut self) {
        if let Some(pause) = self.pause.take() {
            self.started += pause.since.elapsed();
            self.services.silence.last.renew();
        }
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// When QEMU does not answer; a container cannot be stopped so.
    pub async fn suspend(&self) -> Result<(), MonitorError> {
        self.guest.suspend().await
    }

    /// Waits until the guest has ended.
    pub async fn exited(&self) -> Exit {
        self.guest.exited().await
    }

    /// What a guest that has ended did last may still be on its way to us.
    async fn last_words(&mut self, limits: &Limits<'_>) -> Option<GuestEvent> {
        while let Ok(Some(event)) = timeout(LAST_WORDS, self.services.events.recv()).await {
            if let Some(happening) = self.weigh(event, limits) {
                return Some(happening);
            }
        }
        None
    }

    fn weigh(&mut self, event: tftp::Event, limits: &Limits<'_>) -> Option<GuestEvent> {
        match event {
            tftp::Event::FirstContact if !self.heard => {
                self.heard = true;
                Some(GuestEvent::FirstContact)
            }
            tftp::Event::FirstContact => None,
            tftp::Event::Put { name, bytes, .. } => {
                self.services.metrics.tftp("put", bytes);
                if limits.last_put.contains(&name.as_str()) {
                    return Some(GuestEvent::Done);
                }
                info!(name, bytes, "the guest put a file");
                (name == BREAKPOINT).then_some(GuestEvent::Breakpoint)
            }
            tftp::Event::Fetched { name, bytes } => {
                self.services.metrics.tftp("fetch", bytes);
                info!(name, bytes, "the guest fetched a file");
                None
            }
            // It asks whether it may go on.
            tftp::Event::Refused { name, .. } if name == RESUME => None,
            tftp::Event::Refused { name, reason } => {
                warn!(name, %reason, "the guest was refused a file");
                None
            }
        }
    }

    /// What the guest has taken of the host until now.
    pub fn usage(&self) -> Usage {
        self.guest.usage()
    }

    /// Waits until the guest has shut itself down, and helps when it does not.
    /// Whether it did so by itself: only then its disk is whole.
    pub async fn shut_down(self) -> bool {
        let by_itself = timeout(SHUTDOWN_LIMIT, self.guest.exited()).await;
        if by_itself.is_err() {
            warn!("the guest does not shut itself down: it is ended");
            complain(self.guest.stop(SHUTDOWN_LIMIT).await);
        }
        debug!("the guest's process has ended");
        self.tear_down();
        by_itself.is_ok_and(Exit::is_clean)
    }

    /// Freezes the guest in its directory, and ends it.
    ///
    /// # Errors
    /// When it cannot be frozen; it has ended then, too.
    pub async fn freeze(self, directory: &Path) -> Result<(), SessionError> {
        let frozen = self.guest.freeze(directory).await;
        tear_down(self.network, &self.run);
        Ok(frozen?)
    }

    /// Ends the guest at once.
    pub async fn kill(self) {
        complain(self.guest.end().await);
        self.tear_down();
    }

    fn tear_down(self) {
        tear_down(self.network, &self.run);
    }

    /// Lets go of the guest, which runs on: a later agent takes it up.
    pub fn leave(self) {
        info!("the guest runs on without us");
    }
}
