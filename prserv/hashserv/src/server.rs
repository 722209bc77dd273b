//! The server: the protocol, websockets and metrics on one port.

mod http;

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use linerpc::sockets::Socket;
use linerpc::{Connections, Endpoint, Framing, Limits, connection};
use sys::observer::Observer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::service::Service;
use crate::session::{Access, HashSession};

/// A service with access rules, ready to serve on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    connections: Connections,
}

/// The access of one peer.
#[derive(Debug, Clone)]
struct HashEndpoint {
    service: Service,
    access: Arc<Access>,
    peer: Arc<str>,
}

impl Endpoint for HashEndpoint {
    type Session = HashSession;

    fn peer_name(&self) -> &str {
        &self.peer
    }

    fn session(&self, framing: Framing) -> HashSession {
        let access = Arc::clone(&self.access);
        let peer = Arc::clone(&self.peer);
        HashSession::new(self.service.clone(), access, peer, framing)
    }

    fn router(&self, stop: watch::Receiver<bool>) -> Router {
        http::router(self.clone(), stop)
    }
}

impl Server {
    /// Creates a server with the access rules of BitBake's server.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            access: Arc::default(),
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

    /// Serves one connection until the peer closes it or violates the protocol, which is logged.
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: String,
    ) {
        let (_never, stop) = watch::channel(false);
        let name = self.connections.peer_name(&peer);
        connection::serve(self.endpoint(name), stream, stop).await;
    }

    /// Serves all connections until `shutdown` completes. Then tells every connection to end and
    /// returns when all have ended, within a second.
    ///
    /// # Errors
    /// The socket options cannot be set.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let endpoint = |_, name| self.endpoint(name);
        let connections = &self.connections;
        connections.serve_tcp(listener, shutdown, endpoint).await
    }

    /// Serves all connections of a socket as [`Server::serve`] does.
    ///
    /// # Errors
    /// The socket options cannot be set.
    pub async fn serve_socket(
        self,
        socket: Socket,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let endpoint = |_, name| self.endpoint(name);
        let connections = &self.connections;
        connections.serve_socket(socket, shutdown, endpoint).await
    }

    fn endpoint(&self, peer: Arc<str>) -> HashEndpoint {
        HashEndpoint {
            service: self.service.clone(),
            access: Arc::clone(&self.access),
            peer,
        }
    }
}
