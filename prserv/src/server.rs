//! The server: all protocols on one port.

mod connection;

mod json_session;

mod sniff;

mod http;

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::access::Access;
use crate::service::Service;
use crate::session::{AuthorizedService, Peer};

/// The time that connections have to end after a shutdown has begun.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// The time after which a connection is closed whose peer does not read its replies.
const UNREAD_REPLY_TIMEOUT: Duration = Duration::from_mins(1);

/// The pause after a failed accept, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A service with access rules, ready to serve on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    peer_name: Option<String>,
    quit: Option<Arc<Notify>>,
}

impl Server {
    /// Creates a server where every peer may write.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            access: Arc::new(Access::open()),
            peer_name: None,
            quit: None,
        }
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
        prepare(&listener)?;
        let (tell, stop) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let service = self.authorize(self.peer(address));
                        connections.spawn(connection::serve(service, stream, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = &error as &dyn Error,
                            "cannot accept a connection"
                        );
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(
                            error = &error as &dyn Error,
                            "the task of a connection failed"
                        );
                    }
                }
            }
        }
        drop(listener);
        let _ = tell.send(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all_ended)
            .await
            .is_err()
        {
            tracing::info!(
                connections = connections.len(),
                "closing connections that did not end in time"
            );
        }
        Ok(())
    }

    fn authorize(&self, peer: Peer) -> AuthorizedService {
        AuthorizedService {
            service: self.service.clone(),
            access: Arc::clone(&self.access),
            peer,
            quit: self.quit.clone(),
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

/// Sets socket options on the listener. Linux lets accepted sockets inherit them, which saves six
/// system calls per connection.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    // A reply is one small packet, so pacing (BBR) only costs a timer each. Every kernel has Reno,
    // but a host may forbid the choice; then the host's default stays in effect.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.set_tcp_user_timeout(Some(UNREAD_REPLY_TIMEOUT))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}
