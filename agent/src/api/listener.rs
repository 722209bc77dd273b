//! The listening sockets, and the HTTP connections that they accept.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Uid, User};
use sys::blocking::blocking;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tracing::{debug, warn};

use super::auth::Peer;
use super::tls::TlsConfig;

/// The time limit for the head of a request, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which connections must end when the agent stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// The administration socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
    /// A TCP socket for TLS.
    Tls(TcpListener, TlsConfig),
}

/// An accepted connection, before its TLS handshake.
enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Peer),
    Tls(TcpStream, Peer, TlsConfig),
}

/// Serves the connections of a listener, each with one of the permits, until `stop`. Then
/// tells the connections to end, and returns when they have ended or after
/// [`SHUTDOWN_TIMEOUT`].
pub(super) async fn serve(
    listener: Listener,
    router: Router,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let served = accepted.serve(router.clone(), stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(error = &error as &dyn Error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(SHUTDOWN_TIMEOUT, connections.join_all()).await;
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, peer) = accept_tcp(listener).await?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Self::Tls(listener, config) => {
                let (stream, peer) = accept_tcp(listener).await?;
                Ok(Accepted::Tls(stream, peer, Arc::clone(config)))
            }
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, Peer)> {
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, Peer::Remote(address.ip())))
}

impl Accepted {
    async fn serve(self, router: Router, stop: CancellationToken) {
        match self {
            Self::Unix(stream) => match local_peer(&stream).await {
                Ok(peer) => serve_connection(stream, peer, router, stop).await,
                Err(error) => {
                    let error = &error as &dyn Error;
                    warn!(error, "cannot identify the user of a connection");
                }
            },
            Self::Tcp(stream, peer) => serve_connection(stream, peer, router, stop).await,
            Self::Tls(stream, peer, config) => {
                let acceptor = TlsAcceptor::from(config.get().await);
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, peer, router, stop).await,
                    Ok(Err(error)) => {
                        let error = &error as &dyn Error;
                        debug!(?peer, error, "TLS handshake failed");
                    }
                    Err(_) => debug!(?peer, "TLS handshake timed out"),
                }
            }
        }
    }
}

/// Returns the user at the other end of the administration socket.
async fn local_peer(stream: &UnixStream) -> io::Result<Peer> {
    let user = stream.peer_cred()?.uid();
    let known = blocking(move || User::from_uid(Uid::from_raw(user)).ok().flatten()).await;
    let name = known.map_or_else(|| user.to_string(), |user| user.name);
    Ok(Peer::Local { user, name })
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(Extension(peer).layer(router));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        let error = &error as &dyn Error;
        debug!(error, "connection failed");
    }
}
