//! The TFTP server of one guest (RFC 1350, 2347 to 2349, 7440).
//!
//! A guest sees a [`Namespace`] of names and nothing else. Every transfer is a thread
//! with a socket of its own; both are born in the guest's network, so that what
//! happens for each packet is one plain system call. A put is whole: it comes to
//! its place, on disk, before its last block is acknowledged.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::mpsc;

mod namespace;
mod request;

mod staging;

mod receive;
mod send;
mod transport;

mod listener;
mod transfer;

#[cfg(test)]
mod lossy_link_tests;

pub use namespace::{DeferredFile, Namespace, Offer};

use staging::Quota;

/// So much is told of what a guest fetches and is refused: who listens writes it down,
/// and a guest could fill a disk with it.
const TOLD_MAX: u64 = 1000;

/// Something that a guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its first request came.
    FirstContact,
    /// It has fetched something to the end. After a thousand, no more is told.
    Fetched {
        /// Under this name.
        name: String,
        /// How long it is.
        bytes: u64,
    },
    /// It has put something, which is complete and on disk.
    Put {
        /// Under this name.
        name: String,
        /// Where it is.
        path: PathBuf,
        /// How long it is.
        bytes: u64,
    },
    /// It was refused something. When many come at once, some are left out; after a
    /// thousand, no more is told.
    Refused {
        /// The name that it asked for.
        name: String,
        /// What it was told.
        reason: String,
    },
}

/// A running server. Dropping it ends all its transfers; nothing is put to its
/// place and no event is sent after that.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts a server at all `addresses`, in the network namespace of the caller's
    /// thread. A transfer waits when `events` is full.
    ///
    /// # Errors
    /// When an address cannot be bound, or there are no more threads.
    pub fn start(
        addresses: &[SocketAddr],
        namespace: Namespace,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        namespace.sweep()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let shared = Arc::new(Shared {
            quota: Quota::new(namespace.bytes_max, namespace.files_max),
            namespace,
            events,
            ended: RwLock::new(false),
            contacted: AtomicBool::new(false),
            told: AtomicU64::new(0),
        });
        let sockets = addresses.iter().map(UdpSocket::bind);
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let addresses = sockets.iter().map(UdpSocket::local_addr);
        let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
        let listener = listener::Listener::new(sockets, Arc::clone(&shared), Arc::clone(&stop));
        thread::Builder::new()
            .name("tftp".to_owned())
            .spawn(move || listener.run())?;
        Ok(Self {
            shared,
            stop,
            addresses,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.end();
        // Cannot fail: the counter is far from full.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

/// What the threads of one server share.
#[derive(Debug)]
struct Shared {
    namespace: Namespace,
    quota: Arc<Mutex<Quota>>,
    events: mpsc::Sender<Event>,
    /// Held for reading while something is put to its place.
    ended: RwLock<bool>,
    contacted: AtomicBool,
    /// How much there was to tell that only matters to who reads it.
    told: AtomicU64,
}

impl Shared {
    fn end(&self) {
        *self.ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Does `work` unless the server has ended, and keeps it from ending meanwhile.
    fn unless_ended<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        (!*ended).then(work)
    }

    /// Tells of something that must not be missed.
    fn tell(&self, event: Event) {
        if self.unless_ended(|| ()).is_some() {
            // Nobody listens any more when the receiver is gone.
            let _ = self.events.blocking_send(event);
        }
    }

    fn contact(&self) {
        if !self.contacted.swap(true, Ordering::Relaxed) {
            self.tell(Event::FirstContact);
        }
    }

    /// Whether one more thing may be told that only matters to who reads it.
    fn may_tell(&self) -> bool {
        let told = self.told.fetch_add(1, Ordering::Relaxed);
        if told == TOLD_MAX {
            tracing::warn!("the guest asks for so much that no more is told of it");
        }
        told < TOLD_MAX
    }

    fn tell_fetched(&self, name: &str, bytes: u64) {
        if self.may_tell() {
            let name = name.to_owned();
            self.tell(Event::Fetched { name, bytes });
        }
    }

    /// Tells of a refusal, unless there is no room.
    fn tell_refusal(&self, name: &str, reason: &str) {
        if !self.may_tell() {
            return;
        }
        let name = name.chars().take(100).collect();
        let reason = reason.to_owned();
        let event = Event::Refused { name, reason };
        self.unless_ended(|| self.events.try_send(event).ok());
    }
}
