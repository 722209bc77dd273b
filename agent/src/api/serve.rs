//! Takes connections at a socket, plain or secret, and serves each until it ends: so
//! many at once, and none that only waits.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use config::settings::Tls;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Uid, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use tower::Layer;
use tracing::{debug, warn};

use super::access::Peer;
use super::reread::Reread;

/// How long a client may take for the head of its request, or rest between two.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take to agree on a secret.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long connections may take to end when the agent stops.
const GRACE: Duration = Duration::from_secs(2);
/// How long to wait when the system has no more sockets for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that clients find us at.
#[derive(Debug)]
pub(super) enum Door {
    /// The administration socket.
    Unix(UnixListener),
    /// On the network.
    Tcp(TcpListener),
    /// On the network, in secret.
    Tls(TcpListener, Arc<Reread<Secret>>),
}

/// Someone who has come in.
enum Visitor {
    Unix(UnixStream),
    Tcp(TcpStream, Peer),
    Tls(TcpStream, Peer, Arc<Secret>),
}

/// What is needed to speak in secret.
pub(super) struct Secret(TlsAcceptor);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads the files of a certificate.
pub(super) fn secret(tls: &Tls) -> io::Result<Arc<Reread<Secret>>> {
    let paths = vec![tls.certificate.clone(), tls.key.clone()];
    Reread::new(paths, read_secret).map(Arc::new)
}

fn read_secret(paths: &[PathBuf]) -> io::Result<Secret> {
    let [certificate, key] = paths else {
        return Err(io::Error::other("a certificate and a key are expected"));
    };
    let fault = |path: &Path, error: &dyn std::fmt::Display| {
        io::Error::other(format!("cannot use {}: {error}", path.display()))
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| fault(certificate, &error))?
        .collect();
    let chain = chain.map_err(|error| fault(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
    let mut settings = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| fault(certificate, &error))?;
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Secret(TlsAcceptor::from(Arc::new(settings))))
}

/// Serves all who connect, as many at once as `places` has, until `stop`; then tells
/// every connection to end, and returns when they have, or soon after.
pub(super) async fn serve(
    door: Door,
    router: Router,
    places: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = door.accept() => accepted,
        };
        match accepted {
            Ok(visitor) => {
                let served = visitor.serve(router.clone(), stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(door);
    let _ = timeout(GRACE, connections.join_all()).await;
}

impl Door {
    async fn accept(&self) -> io::Result<Visitor> {
        match self {
            Self::Unix(listener) => Ok(Visitor::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Visitor::Tcp(stream, Peer::Remote(address.ip())))
            }
            Self::Tls(listener, secret) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer::Remote(address.ip());
                Ok(Visitor::Tls(stream, peer, secret.get()))
            }
        }
    }
}

impl Visitor {
    async fn serve(self, router: Router, stop: CancellationToken) {
        match self {
            Self::Unix(stream) => match local(&stream) {
                Ok(peer) => talk(stream, peer, router, stop).await,
                Err(error) => warn!(%error, "cannot tell who has connected"),
            },
            Self::Tcp(stream, peer) => talk(stream, peer, router, stop).await,
            Self::Tls(stream, peer, secret) => {
                match timeout(HANDSHAKE_LIMIT, secret.0.accept(stream)).await {
                    Ok(Ok(stream)) => talk(stream, peer, router, stop).await,
                    Ok(Err(error)) => debug!(?peer, %error, "no agreement on a secret"),
                    Err(_) => debug!(?peer, "no agreement on a secret in time"),
                }
            }
        }
    }
}

/// Who is at the other end of the socket.
fn local(stream: &UnixStream) -> io::Result<Peer> {
    let user = stream.peer_cred()?.uid();
    let known = User::from_uid(Uid::from_raw(user)).ok().flatten();
    let name = known.map_or_else(|| user.to_string(), |user| user.name);
    Ok(Peer::Local { user, name })
}

async fn talk(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(Extension(peer).layer(router));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
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
        debug!(%error, "a connection has ended badly");
    }
}
