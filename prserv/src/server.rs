//! The server: all protocols on one port.

mod json_session;

mod http;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use json_session::JsonSession;
pub use linerpc::Limits;
use linerpc::sockets::Socket;
use linerpc::{Connections, Endpoint, Framing, connection};
use sys::observer::Observer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

use crate::access::{Access, Rights};
use crate::identity::Identity;
use crate::service::Service;
use crate::session::{AuthorizedService, Peer};

/// The exports that are answered at once. Each keeps all of its rows in memory until the peer has
/// read them.
const EXPORTS_MAX: usize = 4;

/// A service with access rules, ready to serve on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    quit: Option<Arc<Notify>>,
    exports: Arc<Semaphore>,
    connections: Connections,
}

impl Endpoint for AuthorizedService {
    type Session = JsonSession;

    fn peer_name(&self) -> &str {
        &self.peer.identity.name
    }

    fn session(&self, framing: Framing) -> JsonSession {
        JsonSession::new(self.clone(), framing)
    }

    fn router(&self, stop: watch::Receiver<bool>) -> Router {
        http::router(self.clone(), stop)
    }
}

impl Server {
    /// Creates a server where every peer may write.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            access: Arc::new(Access::open()),
            quit: None,
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            connections: Connections::default(),
        }
    }

    /// Sets the limits of connections. Clones of the server share the places.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.connections.set_limits(limits);
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
    pub fn with_peer_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.connections.set_peer_name(name.into());
        self
    }

    /// Sets the observer that learns when peers send something.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.connections.set_observer(observer);
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
        let endpoint = |address, name| self.endpoint(address, name);
        let connections = &self.connections;
        connections.serve_tcp(listener, shutdown, endpoint).await
    }

    /// Serves all connections of a socket as [`Server::serve`] does. Everyone who may open a socket
    /// in the file system has all rights, except in lockdown.
    ///
    /// # Errors
    /// The socket options cannot be set.
    pub async fn serve_socket(
        self,
        socket: Socket,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let endpoint = |address, name| self.endpoint(address, name);
        let connections = &self.connections;
        connections.serve_socket(socket, shutdown, endpoint).await
    }

    fn endpoint(&self, address: Option<SocketAddr>, name: Arc<str>) -> AuthorizedService {
        let rights = match address {
            Some(address) => self.access.rights_of(address.ip()),
            None => self.access.rights_of_trusted(),
        };
        self.authorize(peer(name, rights))
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
}

fn peer(name: Arc<str>, rights: Rights) -> Peer {
    Peer {
        identity: Identity::new(name),
        rights,
    }
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
