//! The server: all protocols on one port.

mod connection;

mod dialogue;

mod sniff;

mod http;

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
use crate::desk::{Desk, Peer};
use crate::service::Service;

/// How long connections may take to end once they are told to.
const GRACE: Duration = Duration::from_millis(500);

/// How long a peer may leave our replies unread.
const READER_SECONDS_MAX: Duration = Duration::from_mins(1);

/// How long to wait when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A service with its rules, ready to be served on any number of listeners.
#[derive(Debug, Clone)]
pub struct Server {
    service: Service,
    access: Arc<Access>,
    name: Option<String>,
    quit: Option<Arc<Notify>>,
}

impl Server {
    /// A server where everybody may write.
    pub fn new(service: Service) -> Self {
        Self {
            service,
            access: Arc::new(Access::everybody()),
            name: None,
            quit: None,
        }
    }

    /// The same with rules.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Arc::new(access);
        self
    }

    /// The same for peers that our log is to call by this name: the guest on whose network the
    /// listener is.
    #[must_use]
    pub fn with_peer_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The same where XML-RPC's `quit` exists: who calls it notifies `quit`, and whoever waits
    /// for that is to end the server.
    #[must_use]
    pub fn with_quit(mut self, quit: Arc<Notify>) -> Self {
        self.quit = Some(quit);
        self
    }

    /// Serves one connection until the peer leaves or does something wrong, which is logged.
    ///
    /// May be dropped at any time: what was answered is on disk, and what was not is not owed.
    pub async fn serve_connection(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
    ) {
        let (_never, stop) = watch::channel(false);
        connection::serve(self.desk(peer), stream, stop).await;
    }

    /// Serves all who connect until `shutdown` completes; then tells every connection to end, and
    /// returns when they have, within a second.
    ///
    /// Dropping the future closes the listener and all connections at once. The service stays
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
                        let desk = self.desk(self.peer(address));
                        connections.spawn(connection::serve(desk, stream, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
            }
        }
        drop(listener);
        let _ = tell.send(true);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all_ended).await.is_err() {
            tracing::info!(connections = connections.len(), "closing what did not end");
        }
        Ok(())
    }

    fn desk(&self, peer: Peer) -> Desk {
        Desk {
            service: self.service.clone(),
            access: Arc::clone(&self.access),
            peer,
            quit: self.quit.clone(),
        }
    }

    fn peer(&self, address: SocketAddr) -> Peer {
        let name = self.name.clone().unwrap_or_else(|| address.to_string());
        Peer {
            name,
            rights: self.access.rights_of(address.ip()),
        }
    }
}

/// [`Server::serve_connection`] where everybody may write.
pub async fn serve_connection(
    service: Service,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
) {
    Server::new(service).serve_connection(stream, peer).await;
}

/// [`Server::serve`] where everybody may write.
pub async fn serve(
    service: Service,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    Server::new(service).serve(listener, shutdown).await
}

/// Sets what Linux lets accepted sockets inherit, which spares six calls for each of them.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    // An answer is one small packet: there is nothing to pace, and pacing (BBR) costs a timer for
    // each. Every kernel has Reno, but a host may forbid the choice; then it stays as it is.
    let _ = socket.set_tcp_congestion(b"reno");
    socket.set_tcp_user_timeout(Some(READER_SECONDS_MAX))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}
