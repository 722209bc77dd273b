//! The sockets of the API and the connections that they accept, plain or with TLS.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use config::settings::Tls;
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Uid, User};
use prserv::listener::{self, HalfClose, Limits, Listener, serve_http};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
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

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that connections have to end when the agent stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// A listening socket of the API.
#[derive(Debug)]
pub(super) enum ApiListener {
    /// The administration socket.
    Unix(UnixListener),
    /// A TCP socket.
    Tcp(TcpListener),
    /// A TCP socket with TLS.
    Tls(TcpListener, Arc<Reread<TlsConfig>>),
}

/// An accepted connection.
pub(super) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream, Peer),
    Tls(TcpStream, Peer, Arc<TlsConfig>),
}

/// The certificate and the key of a TLS server.
pub(super) struct TlsConfig(TlsAcceptor);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig")
    }
}

/// Reads the certificate and the key. They are read again when the files change.
pub(super) fn tls_config(tls: &Tls) -> io::Result<Arc<Reread<TlsConfig>>> {
    let paths = vec![tls.certificate.clone(), tls.key.clone()];
    Reread::new(paths, read_tls_config).map(Arc::new)
}

fn read_tls_config(paths: &[PathBuf]) -> io::Result<TlsConfig> {
    let [certificate, key] = paths else {
        return Err(io::Error::other("a certificate and a key are expected"));
    };
    let unusable = |path: &Path, error: &dyn std::fmt::Display| {
        io::Error::other(format!("cannot use {}: {error}", path.display()))
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .map_err(|error| unusable(certificate, &error))?
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|error| unusable(certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConfig(TlsAcceptor::from(Arc::new(config))))
}

/// Serves all connections of a socket, one permit each, until `stop` is cancelled. Returns when all
/// have ended or the grace period is over.
pub(super) async fn serve(
    listener: ApiListener,
    router: Router,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let limits = Limits {
        permits: Some(permits),
        grace: SHUTDOWN_GRACE,
    };
    listener::serve(listener, limits, stop.cancelled(), |accepted, stop| {
        accepted.serve(router.clone(), stop)
    })
    .await;
}

impl Listener for ApiListener {
    type Connection = Accepted;

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, Peer::Remote(address.ip())))
            }
            Self::Tls(listener, tls) => {
                let (stream, address) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let peer = Peer::Remote(address.ip());
                Ok(Accepted::Tls(stream, peer, tls.get()))
            }
        }
    }
}

impl Accepted {
    async fn serve(self, router: Router, stop: CancellationToken) {
        match self {
            Self::Unix(stream) => match local_peer(&stream) {
                Ok(peer) => serve_connection(stream, peer, router, stop).await,
                Err(error) => {
                    warn!(
                        error = &error as &dyn Error,
                        "cannot read the credentials of a peer"
                    );
                }
            },
            Self::Tcp(stream, peer) => serve_connection(stream, peer, router, stop).await,
            Self::Tls(stream, peer, tls) => {
                match timeout(TLS_HANDSHAKE_TIMEOUT, tls.0.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, peer, router, stop).await,
                    Ok(Err(error)) => {
                        debug!(
                            error = &error as &dyn Error,
                            ?peer,
                            "the TLS handshake failed"
                        );
                    }
                    Err(_) => debug!(?peer, "the TLS handshake timed out"),
                }
            }
        }
    }
}

/// Returns the user at the other end of the administration socket.
fn local_peer(stream: &UnixStream) -> io::Result<Peer> {
    let user = stream.peer_cred()?.uid();
    let name = User::from_uid(Uid::from_raw(user))
        .ok()
        .flatten()
        .map_or_else(|| user.to_string(), |user| user.name);
    Ok(Peer::Local { user, name })
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(Extension(peer).layer(router));
    if let Err(error) = serve_http(stream, service, HalfClose::Disconnect, stop).await {
        debug!(error = &error as &dyn Error, "a connection failed");
    }
}
