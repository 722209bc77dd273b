//! The TFTP server of one guest, and of others in its network (RFC 1350, 2347 to 2349, 7440).
//!
//! The guest sees a [`Namespace`] and no directory. Each transfer is a thread with its own
//! socket in the guest's network namespace, so a packet costs one plain system call. A file
//! that is put is on disk under its final name before its last block is acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;

use config::printable;
use rustix::event::{EventfdFlags, eventfd};
use sys::observer::Observer;
use tokio::sync::mpsc;

mod listener;
mod namespace;
mod peers;
mod receive;
mod reports;
mod request;
mod send;
mod staging;
mod transfer;
mod transport;

#[cfg(test)]
mod lossy_link_tests;

pub use namespace::{DeferredFile, Namespace, Offer};
pub use peers::Peer;
pub use reports::Reports;
pub use request::RefusalCause;

use crate::codec;
use peers::Peers;
use request::Refusal;
use staging::Quotas;

/// The number of fetches and refusals that are reported. They are logged, so without a
/// limit a guest could fill a disk with them.
const REPORTS_MAX: u64 = 1000;
/// The number of refused files that are recorded.
const REFUSED_PUTS_MAX: usize = 16;
/// The length of a name in the report of a refusal.
const REFUSED_NAME_MAX: usize = 100;

/// An action of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest has sent its first request.
    FirstContact,
    /// The guest has fetched a file to the end. Not reported after a thousand fetches and
    /// refusals.
    Fetched {
        /// The name in the namespace.
        name: String,
        /// The size of the file.
        bytes: u64,
    },
    /// The guest has put a file, which is complete and on disk.
    Put {
        /// The name in the namespace.
        name: String,
        /// The path of the file.
        path: PathBuf,
        /// The size of the file.
        bytes: u64,
    },
    /// A request of the guest was refused. Not reported while the channel is full, and after a
    /// thousand fetches and refusals.
    Refused {
        /// The name that the guest requested, truncated and escaped for a log line.
        name: String,
        /// The reason, as the guest sees it.
        reason: String,
    },
}

/// A file that the server has not accepted from the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPut {
    /// The name that the guest requested; it may contain anything.
    pub name: String,
    /// The limit that refused the file, or the failure of the host.
    pub cause: RefusalCause,
}

/// A running server. Dropping it stops all transfers: no file is completed and no event is
/// sent after that.
#[derive(Debug)]
pub struct Server {
    peers: Arc<Peers>,
    stop: Arc<OwnedFd>,
    addresses: Vec<SocketAddr>,
}

/// Returns true for a packet that the server accepts: a valid request, or a packet of a transfer.
/// Parses it as the server does.
pub fn accepts(packet: &[u8]) -> bool {
    match request::parse(packet) {
        Some(Ok(request)) => request
            .negotiate(None)
            .packet()
            .is_none_or(|it| !it.is_empty()),
        Some(Err(_)) => false,
        None => codec::parse(packet).is_some(),
    }
}

impl Server {
    /// Starts a server at all `addresses` in the network namespace of the calling thread.
    /// `reports` receives its events; while they wait, transfers wait.
    ///
    /// # Errors
    /// An address cannot be bound, or a thread cannot be started.
    pub fn start(
        addresses: &[SocketAddr],
        namespace: Namespace,
        reports: impl Into<Reports>,
    ) -> io::Result<Self> {
        Self::start_with_peers(addresses, namespace, reports, Vec::new())
    }

    /// Starts a server as [`Server::start`] does, and serves requests from the addresses of `peers`
    /// with their own namespaces.
    ///
    /// # Errors
    /// An address cannot be bound, or a thread cannot be started.
    pub fn start_with_peers(
        addresses: &[SocketAddr],
        namespace: Namespace,
        reports: impl Into<Reports>,
        peers: Vec<Peer>,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let peers = Arc::new(Peers::new(namespace, reports.into(), peers)?);
        let sockets = addresses
            .iter()
            .map(UdpSocket::bind)
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = sockets
            .iter()
            .map(UdpSocket::local_addr)
            .collect::<io::Result<Vec<_>>>()?;
        let listener = listener::Listener::new(sockets, Arc::clone(&peers), Arc::clone(&stop));
        thread::Builder::new()
            .name("tftp".to_owned())
            .spawn(move || listener.run())?;
        Ok(Self {
            peers,
            stop,
            addresses,
        })
    }

    /// Returns the files that the guest could not put because of a limit or of the host, and
    /// has not put since. Of many, the first ones.
    pub fn refused_puts(&self) -> Vec<RefusedPut> {
        let refused = self.peers.guest().refused_puts();
        let refused = refused.iter().map(|(name, cause)| RefusedPut {
            name: name.clone(),
            cause: *cause,
        });
        refused.collect()
    }

    /// Returns the addresses that the server listens at.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.peers.stop();
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

/// The state that the threads of one server share for one guest.
#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    quotas: Quotas,
    events: mpsc::Sender<Event>,
    observer: Observer,
    /// Locked for reading while a file is published.
    stopped: RwLock<bool>,
    contacted: AtomicBool,
    /// The number of fetches and refusals so far.
    reports: AtomicU64,
    /// The files that the guest could not put, and has not put since.
    refused_puts: Mutex<BTreeMap<String, RefusalCause>>,
}

impl Shared {
    /// Removes the incomplete files of an earlier server, and returns the state of a new one.
    fn new(namespace: Namespace, reports: Reports) -> io::Result<Self> {
        namespace.sweep()?;
        Ok(Self {
            quotas: namespace.quotas(),
            namespace,
            events: reports.events,
            observer: reports.observer,
            stopped: RwLock::new(false),
            contacted: AtomicBool::new(false),
            reports: AtomicU64::new(0),
            refused_puts: Mutex::default(),
        })
    }

    fn stop(&self) {
        *self.stopped.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Runs `work` unless the server is stopped, and delays a stop until `work` has ended.
    fn unless_stopped<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let stopped = self.stopped.read().unwrap_or_else(PoisonError::into_inner);
        (!*stopped).then(work)
    }

    /// Reports an event. Waits while the channel is full.
    fn report(&self, event: Event) {
        if self.unless_stopped(|| ()).is_some() {
            // Fails when the receiver was dropped.
            let _ = self.events.blocking_send(event);
        }
    }

    fn report_contact(&self) {
        if !self.contacted.swap(true, Ordering::Relaxed) {
            self.report(Event::FirstContact);
        }
    }

    fn report_fetched(&self, name: &str, bytes: u64) {
        if self.may_report() {
            let name = name.to_owned();
            self.report(Event::Fetched { name, bytes });
        }
    }

    fn refused_puts(&self) -> MutexGuard<'_, BTreeMap<String, RefusalCause>> {
        self.refused_puts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Records and reports a refusal. Does not report it while the channel is full.
    fn report_refusal(&self, name: &str, refusal: &Refusal) {
        if let Some(cause) = refusal.cause {
            let mut refused = self.refused_puts();
            if refused.len() < REFUSED_PUTS_MAX || refused.contains_key(name) {
                refused.insert(name.to_owned(), cause);
            }
        }
        if !self.may_report() {
            return;
        }
        let name: String = name.chars().take(REFUSED_NAME_MAX).collect();
        let name = printable(&name).to_string();
        let reason = refusal.reason.clone();
        let event = Event::Refused { name, reason };
        self.unless_stopped(|| self.events.try_send(event).ok());
    }

    /// Counts a fetch or a refusal. Returns true if it may be reported.
    fn may_report(&self) -> bool {
        let earlier = self.reports.fetch_add(1, Ordering::Relaxed);
        if earlier == REPORTS_MAX {
            tracing::warn!(
                max = REPORTS_MAX,
                "too many requests of the guest, fetches and refusals are no longer reported"
            );
        }
        earlier < REPORTS_MAX
    }
}
