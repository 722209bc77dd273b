//! The listening sockets, and the HTTP connections that they accept.

use std::error::Error;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Uid, User};
use prserv::listener::{self, Deadlines, PeerKey, Places, TimedStream, prepare};
use sys::blocking::blocking;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::{debug, warn};

use super::auth::Peer;
use super::tls::TlsConfig;

/// The time limit for the head of a request, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which connections must end when the agent stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimits {
    /// Those of the transport.
    pub(super) transport: Deadlines,
    /// The limit for each part of the body of a request.
    pub(super) body: Duration,
}

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
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Peer),
    Tls(TcpStream, Peer, TlsConfig),
}

/// Serves the connections of a listener that get a place, until `stop`. Then tells the connections
/// to end, and returns when they have ended or after [`SHUTDOWN_TIMEOUT`].
pub(super) async fn serve(
    listener: Listener,
    router: Router,
    places: Places,
    limits: TimeLimits,
    stop: CancellationToken,
) {
    if let Err(error) = listener.prepare(limits.transport.write) {
        warn!(error = &error as &dyn Error, "cannot set socket options");
    }
    let serve = |accepted: Accepted| accepted.serve(router.clone(), limits, stop.clone());
    let stopped = stop.cancelled();
    prserv::listener::serve(listener, &places, stopped, SHUTDOWN_TIMEOUT, serve).await;
}

impl Listener {
    fn prepare(&self, unread_max: Duration) -> io::Result<()> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tcp(listener) | Self::Tls(listener, _) => prepare(listener, unread_max),
        }
    }
}

impl prserv::listener::Listener for Listener {
    type Connection = Accepted;

    async fn accept(&self) -> io::Result<listener::Accepted<Accepted>> {
        match self {
            Self::Unix(listener) => {
                let stream = listener.accept().await?.0;
                // A peer that has ended already is of no user; its connection ends at once.
                let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
                Ok(listener::Accepted {
                    connection: Accepted::Unix(stream),
                    peer: PeerKey::User(user),
                    descriptor: None,
                })
            }
            Self::Tcp(listener) => accept_tcp(listener, Accepted::Tcp).await,
            Self::Tls(listener, config) => {
                let config = Arc::clone(config);
                accept_tcp(listener, |stream, peer| Accepted::Tls(stream, peer, config)).await
            }
        }
    }
}

async fn accept_tcp(
    listener: &TcpListener,
    connection: impl FnOnce(TcpStream, Peer) -> Accepted,
) -> io::Result<listener::Accepted<Accepted>> {
    let (stream, address) = listener.accept().await?;
    Ok(listener::Accepted {
        peer: PeerKey::of_address(address.ip()),
        descriptor: Some(stream.as_raw_fd()),
        connection: connection(stream, Peer::Remote(address.ip())),
    })
}

impl Accepted {
    async fn serve(self, router: Router, limits: TimeLimits, stop: CancellationToken) {
        match self {
            Self::Unix(stream) => match local_peer(&stream).await {
                Ok(peer) => {
                    let stream = TimedStream::new(stream, limits.transport);
                    serve_connection(stream, peer, router, limits, stop).await;
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    warn!(error, "cannot identify the user of a connection");
                }
            },
            Self::Tcp(stream, peer) => {
                let stream = TimedStream::new(stream, limits.transport);
                serve_connection(stream, peer, router, limits, stop).await;
            }
            Self::Tls(stream, peer, config) => {
                let acceptor = TlsAcceptor::from(config.get().await);
                let stream = TimedStream::new(stream, limits.transport);
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, peer, router, limits, stop).await,
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
    limits: TimeLimits,
    stop: CancellationToken,
) {
    let service = RequestBodyTimeoutLayer::new(limits.body).layer(Extension(peer).layer(router));
    let service = TowerToHyperService::new(service);
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
