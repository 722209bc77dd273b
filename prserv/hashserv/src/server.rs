//! The server: the protocol, websockets and metrics on one port.

mod http;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use linerpc::listener::Places;
use linerpc::server::{serve_tcp, serve_unix};
use linerpc::{Endpoint, Framing, Limits, connection};
use sys::observer::Observer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::service::Service;
use crate::session::{Access, HashSession};

/// A service with access rules, ready to serve on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    peer_name: Option<String>,
    limits: Limits,
    places: Places,
    observer: Observer,
}

/// The access of one peer.
#[derive(Debug, Clone)]
struct HashEndpoint {
    service: Service,
    access: Arc<Access>,
    peer: String,
}

impl Endpoint for HashEndpoint {
    type Session = HashSession;

    fn peer_name(&self) -> &str {
        &self.peer
    }

    fn session(&self, framing: Framing) -> HashSession {
        let access = Arc::clone(&self.access);
        HashSession::new(self.service.clone(), access, self.peer.clone(), framing)
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
            peer_name: None,
            limits: Limits::default(),
            places: Limits::default().places(),
            observer: Observer::default(),
        }
    }

    /// Sets the limits of connections. Clones of the server share the places.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.places = limits.places();
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

    /// Serves one connection until the peer closes it or violates the protocol, which is logged.
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: String,
    ) {
        let (_never, stop) = watch::channel(false);
        connection::serve(self.endpoint(peer), stream, stop).await;
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
        let endpoint = |address: SocketAddr| self.endpoint(address.to_string());
        let (deadlines, observer) = (self.limits.deadlines, self.observer.clone());
        serve_tcp(
            listener,
            &self.places,
            deadlines,
            observer,
            shutdown,
            endpoint,
        )
        .await
    }

    /// Serves all connections to a socket in the file system, as [`Server::serve`].
    pub async fn serve_unix(self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let endpoint = |user: u32| self.endpoint(format!("user {user}"));
        serve_unix(
            listener,
            &self.places,
            self.limits.deadlines,
            shutdown,
            endpoint,
        )
        .await;
    }

    fn endpoint(&self, peer: String) -> HashEndpoint {
        HashEndpoint {
            service: self.service.clone(),
            access: Arc::clone(&self.access),
            peer: self.peer_name.clone().unwrap_or(peer),
        }
    }
}
