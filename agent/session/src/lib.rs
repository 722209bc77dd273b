//! A guest with everything around it: its network, the servers at its gateway, the
//! capture of its output, and its limits.
//!
//! Bootstraps, builds and debug sessions differ in the files that they offer and in the
//! limits that they set; the rest of a guest's life is here.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cache::CacheAccess;
use config::MachineName;
use config::builds::Usage;
use config::machine::Machine;
use config::task::{ForkIdentity, Preload};
use guard::Deadline;
use guest::network::{Network, NetworkError};
use guest::{BootMode, Exit, GuestEnd, GuestError, QmpError, SealedMemory};
use store::Snapshot;
use sys::blocking::blocking;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

mod adopt;
mod auxiliary;
mod bitbake_services;
pub mod commands;
pub mod console;
mod console_tail;
mod egress;
mod events;
mod fork;
pub mod gateway;
mod guest_handle;
mod guest_services;
pub mod handshake;
pub mod hash_service;
mod idle_timeout;
pub mod line_times;
pub mod log_capture;
mod orphans;
mod parts;
pub mod pr_service;
mod ready;
mod rehearsal;
mod scopes;
mod secrets;
mod shutdown_report;
mod start;
mod streams;
mod teardown;

pub use auxiliary::{AdoptAuxiliary, AuxiliaryGroup, AuxiliarySpec, shown as shown_auxiliary};
pub use bitbake_services::{BitBakeServices, OpenError};
pub use commands::DrivenGuest;
pub use console_tail::ConsoleTail;
pub use egress::EgressError;
pub use events::{GuestEvent, GuestFailure, SessionLimits};
pub use fork::{ForkFailure, ForkHandle, ForkRequest, ForkedGuest};
pub use guest_services::GuestServices;
pub use hash_service::HashservAccess;
pub use orphans::{bytes_written, end_orphans, guests_directory, is_running, resume};
pub use ready::{ReadyGuest, ReadySpec};
pub use scopes::{GuestInScope, in_scopes};
pub use secrets::GuestSecrets;

use auxiliary::AuxiliaryGuests;
use gateway::{Attached, Gateway, Servers};
use guest_handle::GuestHandle;
use log_capture::CaptureFiles;
use parts::Parts;
use teardown::{kill, tear_down};

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
    /// An auxiliary guest to adopt has ended.
    #[error("auxiliary machine {0} has ended")]
    AuxiliaryGone(String),
    /// Its guard could not be started.
    #[error(transparent)]
    Guard(#[from] guard::StartError),
    /// A file or a socket of the agent failed.
    #[error("cannot prepare the guest")]
    Prepare(#[from] std::io::Error),
}

/// A reason why a guest could not be started together with auxiliary ones.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A part could not be started.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An auxiliary guest failed, or the start was canceled.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
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
    pub files: tftp::server::Namespace,
    /// Flushes its disk to the host's: the disk is kept afterwards.
    pub durable: bool,
    /// The way in which it boots.
    pub boot: BootMode,
    /// The memory of its checkpoint, if that is shared with other guests.
    pub shared_memory: Option<SealedMemory>,
    /// The files that receive its output.
    pub capture: CaptureFiles,
    /// The secrets that its worker may request.
    pub secrets: GuestSecrets,
    /// The access to its cache.
    pub cache: Option<CacheAccess>,
    /// The request to its worker if a checkpoint of it is to be saved.
    pub preload: Preload,
    /// The access to the hash equivalence service.
    pub hashserv: Option<HashservAccess>,
    /// Set if the guest is driven by commands.
    pub commands: Option<DrivenGuest>,
    /// Set if the guest continues as a copy of a forked one.
    pub copy: Option<GuestCopy>,
    /// The time at which its guard ends it, unless that is moved; `None` without a guard.
    pub deadline: Option<Deadline>,
}

/// A guest that continues as a copy of a forked one.
#[derive(Debug, Clone, Copy)]
pub struct GuestCopy {
    /// Its identity among the copies.
    pub identity: ForkIdentity,
    /// The time for which its source had run.
    pub elapsed: Duration,
}

/// The guest of an earlier agent to adopt.
pub struct AdoptSpec {
    /// Its short name on this host.
    pub tag: String,
    /// Its machine.
    pub machine: MachineName,
    /// The files that it may fetch and put.
    pub files: tftp::server::Namespace,
    /// The files that receive its output.
    pub capture: CaptureFiles,
    /// The secrets that its worker may request, and that are masked in its output.
    pub secrets: GuestSecrets,
    /// The access to its cache.
    pub cache: Option<CacheAccess>,
    /// The access to the hash equivalence service.
    pub hashserv: Option<HashservAccess>,
    /// Set if the guest is driven by commands.
    pub commands: Option<DrivenGuest>,
    /// The time since its start.
    pub elapsed: Duration,
    /// Set if its first packet has arrived.
    pub contacted: bool,
    /// The identity of a copy of a forked guest.
    pub fork: Option<ForkIdentity>,
    /// Its auxiliary guests.
    pub auxiliaries: Vec<AdoptAuxiliary>,
}

/// A running guest with its services. Dropping it leaves the guest running; use
/// [`Session::kill`] or [`Session::leave`], which do not block the runtime.
pub struct Session {
    guest: GuestHandle,
    auxiliaries: AuxiliaryGuests,
    network: Arc<Network>,
    gateway: Gateway,
    started: Instant,
    /// Set when the guest's first packet has arrived.
    contacted: bool,
    pause: Option<Pause>,
    secrets: GuestSecrets,
    run_dir: PathBuf,
    fork_handle: ForkHandle,
    forks: mpsc::Receiver<ForkRequest>,
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
    /// Registers the parts of a session with the runtime. Ends the guest on failure.
    async fn assemble(
        services: &GuestServices,
        (parts, servers): (Parts, Servers),
    ) -> Result<Self, SessionError> {
        let gateway = Gateway::serve(services, servers);
        Self::assemble_at(services, parts, gateway, AuxiliaryGuests::default()).await
    }

    /// Registers the parts of a session at a gateway that is served. Ends all guests on failure.
    async fn assemble_at(
        services: &GuestServices,
        parts: Parts,
        gateway: std::io::Result<Gateway>,
        mut auxiliaries: AuxiliaryGuests,
    ) -> Result<Self, SessionError> {
        let guest = Arc::new(parts.guest);
        let (fork_handle, forks) = ForkHandle::new();
        let network = Arc::new(parts.network);
        let registered = GuestHandle::new(Arc::clone(&guest)).and_then(|handle| {
            let mut gateway = gateway?;
            let attached = Attached {
                streams: parts.streams,
                boot: parts.boot,
                preload: parts.preload,
                fork: parts.fork,
                files: parts.capture,
                secrets: parts.secrets.clone(),
            };
            gateway.attach(
                attached,
                |input| services.consoles.add(&parts.tag, &parts.machine, input),
                |commands| services.commands.add(&parts.tag, commands),
            )?;
            Ok((handle, gateway))
        });
        services.started.notify_one();
        match registered {
            Ok((guest, gateway)) => Ok(Self {
                guest,
                auxiliaries,
                network,
                gateway,
                started: Instant::now(),
                contacted: false,
                pause: None,
                secrets: parts.secrets,
                run_dir: parts.run_dir,
                fork_handle,
                forks,
            }),
            Err(error) => {
                auxiliaries.end().await;
                blocking(move || {
                    kill(&guest);
                    tear_down(&network, &parts.run_dir);
                })
                .await;
                Err(error.into())
            }
        }
    }

    /// Returns the guest's console, if it has one.
    pub fn console(&self) -> Option<console::Console> {
        self.gateway.console()
    }

    /// Returns the guest's secrets.
    pub fn secrets(&self) -> &GuestSecrets {
        &self.secrets
    }

    /// Returns true if the guest is driven by commands and its worker has not waited for any.
    pub fn ignores_commands(&self) -> bool {
        let commands = self.gateway.commands.as_ref();
        commands.is_some_and(|commands| !commands.was_contacted())
    }

    /// Stops the guest's processors.
    ///
    /// # Errors
    /// When QEMU does not answer, or the guest is a container.
    pub async fn suspend(&self) -> Result<(), QmpError> {
        self.guest.run(guest::Guest::suspend).await
    }

    /// Returns the files that the host did not accept from the guest; of many, the first ones.
    pub fn refused_puts(&self) -> Vec<tftp::server::RefusedPut> {
        self.gateway.tftp.refused_puts()
    }

    /// Waits until the guest's process has ended. Cancel-safe.
    pub async fn exited(&self) -> Exit {
        self.guest.exited().await
    }

    /// Returns the resources that the guest has used so far.
    pub async fn usage(&self) -> Usage {
        self.guest.run(guest::Guest::usage).await
    }

    /// Ends the auxiliary guests; the guest itself runs on.
    pub async fn end_auxiliaries(&mut self) {
        self.auxiliaries.end().await;
    }

    /// Waits until the guest has shut down, and kills it after `limit`. Returns the end of a guest
    /// that ended by itself: only then its disk may be consistent.
    pub async fn shut_down(self, limit: Duration) -> Option<GuestEnd> {
        let end = if let Ok(exit) = timeout(limit, self.guest.exited()).await {
            let shutdown = self.gateway.shutdown.of_ended().await;
            Some(self.guest.end(exit, shutdown))
        } else {
            warn!(
                seconds = limit.as_secs(),
                "the guest does not shut down; ending it"
            );
            self.guest.run(kill).await;
            None
        };
        self.tear_down().await;
        end
    }

    /// Saves a checkpoint of the guest in its directory, and ends the guest.
    ///
    /// # Errors
    /// When the checkpoint cannot be saved; the guest has ended then, too.
    pub async fn checkpoint(self, directory: &Path) -> Result<(), SessionError> {
        let directory = directory.to_owned();
        let saved = self.guest.run(move |guest| guest.checkpoint(&directory));
        let saved = saved.await;
        self.tear_down().await;
        Ok(saved?)
    }

    /// Kills the guest.
    pub async fn kill(self) {
        self.guest.run(kill).await;
        self.tear_down().await;
    }

    /// Captures the rest of the output of a guest that has ended, and deletes what it leaves.
    async fn tear_down(mut self) {
        debug!("the guest's process has ended");
        self.gateway.drain().await;
        self.auxiliaries.end().await;
        let (gateway, network, run_dir) = (self.gateway, self.network, self.run_dir);
        blocking(move || {
            drop(gateway);
            tear_down(&network, &run_dir);
        })
        .await;
    }

    /// Leaves the guest running for the next agent to adopt.
    pub async fn leave(self) {
        info!("leaving the guest to the next agent");
        blocking(move || drop(self)).await;
    }
}
