//! The server: BitBake's protocol on sockets.

mod connection;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::service::Service;

/// How long connections may take to end once they are told to.
const GRACE: Duration = Duration::from_millis(500);

/// How long to wait when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// How our log calls it.
    pub name: String,
}

impl Peer {
    /// A peer by its name: an address, or the guest on whose network it is.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// Serves one connection until the peer leaves or does something wrong, which is logged.
///
/// May be dropped at any time: what was answered is on disk, and what was not is not owed.
pub async fn serve_connection(
    service: &Service,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: Peer,
) {
    let (_never, stop) = watch::channel(false);
    connection::serve(service, stream, &peer, stop).await;
}

/// Serves all who connect until `shutdown` completes; then tells every connection to end, and
/// returns when they have, within a second.
///
/// Dropping the future closes the listener and all connections at once. The service stays open.
pub async fn serve(
    service: Service,
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
                    let peer = Peer::new(address.to_string());
                    connections.spawn(serve_accepted(service.clone(), stream, peer, stop.clone()));
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
        tracing::info!(
            connections = connections.len(),
            "closing connections that did not end"
        );
    }
    Ok(())
}

async fn serve_accepted(
    service: Service,
    stream: TcpStream,
    peer: Peer,
    stop: watch::Receiver<bool>,
) {
    connection::serve(&service, stream, &peer, stop).await;
}

/// Sets what Linux lets accepted sockets inherit, which spares five calls for each of them.
fn prepare(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}
