//! The server: all protocols on one port.

mod connection;

mod json_session;

mod sniff;

mod http;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use sys::observer::Observer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::io::InspectReader;

use crate::access::Access;
use crate::listener::{self, Accepted, Deadlines, Listener, PeerKey, Places, TimedStream};
use crate::service::Service;
use crate::session::{AuthorizedService, Peer};

/// The time that connections have to end after a shutdown has begun.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// The exports that are answered at once. Each keeps all of its rows in memory until the peer has
/// read them.
const EXPORTS_MAX: usize = 4;

/// The limits of a server's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest number of connections; further ones wait.
    pub connections_max: usize,
    /// The largest number of connections of one peer; further ones are closed.
    pub connections_per_peer_max: usize,
    /// The time limits of each connection.
    pub deadlines: Deadlines,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 512,
            deadlines: Deadlines {
                first_byte: Duration::from_secs(30),
                idle: Some(Duration::from_hours(1)),
                write: Duration::from_secs(30),
            },
        }
    }
}

/// A service with access rules, ready to serve on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    peer_name: Option<String>,
    quit: Option<Arc<Notify>>,
    limits: Limits,
    places: Places,
    exports: Arc<Semaphore>,
    observer: Observer,
}

/// The listening socket of a server.
struct PrListener(TcpListener);

impl Listener for PrListener {
    type Connection = (TcpStream, SocketAddr);

    async fn accept(&self) -> io::Result<Accepted<Self::Connection>> {
        let (stream, address) = self.0.accept().await?;
        Ok(Accepted {
            peer: PeerKey::of_address(address.ip()),
            descriptor: Some(stream.as_raw_fd()),
            connection: (stream, address),
        })
    }
}

impl Server {
    /// Creates a server where every peer may write.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            access: Arc::new(Access::open()),
            peer_name: None,
            quit: None,
            limits: Limits::default(),
            places: places(&Limits::default()),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            observer: Observer::default(),
        }
    }

    /// Sets the limits of connections. Clones of the server share the places.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.places = places(&limits);
        self
    }

    /// Sets the access rules.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// Sets the name of all peers in the log, for example the guest on whose network the listener
    /// is.
    #[must_use]
    pub fn with_peer_name(mut self, name: impl Into<String>) -> Self {
        self.peer_name = Some(name.into());
        self
    }

    /// Sets the observer that learns when peers send something.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = observer;
        self
    }

    /// Enables XML-RPC's `quit`, which notifies `quit`. The owner of the server must end it then.
    #[must_use]
    pub fn with_quit(mut self, quit: Arc<Notify>) -> Self {
        self.quit = Some(quit);
        self
    }

    /// Serves one connection until the peer closes it or violates the protocol, which is logged.
    ///
    /// Cancel-safe: an answered value is on disk, and a client repeats an unanswered request.
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
    ) {
        let (_never, stop) = watch::channel(false);
        connection::serve(self.authorize(peer), stream, stop).await;
    }

    /// Serves all connections until `shutdown` completes. Then tells every connection to end and
    /// returns when all have ended, within a second.
    ///
    /// Dropping the future closes the listener and all connections immediately. The service stays
    /// open.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        listener::prepare(&listener, self.limits.deadlines.write)?;
        let (tell, stop) = watch::channel(false);
        let stopping = async move {
            shutdown.await;
            let _ = tell.send(true);
        };
        let deadlines = self.limits.deadlines;
        let serve = |(stream, address)| {
            let service = self.authorize(self.peer(address));
            let observer = self.observer.clone();
            let stream = TimedStream::new(stream, deadlines);
            let stream = InspectReader::new(stream, move |_: &[u8]| observer.observe());
            connection::serve(service, stream, stop.clone())
        };
        listener::serve(
            PrListener(listener),
            &self.places,
            stopping,
            SHUTDOWN_GRACE,
            serve,
        )
        .await;
        Ok(())
    }

    fn authorize(&self, peer: Peer) -> AuthorizedService {
        AuthorizedService {
            service: self.service.clone(),
            access: Arc::clone(&self.access),
            peer,
            quit: self.quit.clone(),
            exports: Arc::clone(&self.exports),
        }
    }

    fn peer(&self, address: SocketAddr) -> Peer {
        let name = self
            .peer_name
            .clone()
            .unwrap_or_else(|| address.to_string());
        Peer {
            name,
            rights: self.access.rights_of(address.ip()),
        }
    }
}

fn places(limits: &Limits) -> Places {
    Places::new(limits.connections_max, limits.connections_per_peer_max)
}

/// Serves one connection of a peer that may write. See [`Server::serve_connection`].
pub async fn serve_connection(
    service: Service,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
) {
    Server::new(service).serve_connection(stream, peer).await;
}

/// Serves all connections and lets every peer write. See [`Server::serve`].
pub async fn serve(
    service: Service,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    Server::new(service).serve(listener, shutdown).await
}
