//! Connections to an agent: through its socket, over the network, or by ssh.

mod relay;
mod stream;
mod tls;

use std::future::Future;
use std::io;
use std::os::unix::net;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tower::Service;

use crate::endpoint::{Endpoint, NetworkEndpoint};
use crate::error::ConnectError;

pub use relay::greeting;
pub(crate) use stream::Stream;

/// The time limit for a connection over the network, including that of TLS.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// The time after which a silent connection is probed, and between two probes. A peer that has
/// disappeared is noticed after four of them.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// The part of an HTTP client that connects.
#[derive(Debug, Clone)]
pub(crate) struct Connector(Arc<Endpoint>);

impl Connector {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self(Arc::new(endpoint))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0
    }
}

type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Arc<ConnectError>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    // Shared, because a client lends its errors.
    type Error = Arc<ConnectError>;
    type Future = Connecting;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _address: Uri) -> Connecting {
        let endpoint = Arc::clone(&self.0);
        Box::pin(async move {
            let connected = connect(&endpoint).await;
            connected.map(TokioIo::new).map_err(Arc::new)
        })
    }
}

async fn connect(endpoint: &Endpoint) -> Result<Stream, ConnectError> {
    match endpoint {
        Endpoint::Socket(path) => {
            let stream = UnixStream::connect(path).await;
            stream
                .map(|io| Stream::Unix { io, relay: None })
                .map_err(|source| socket_error(path, source))
        }
        Endpoint::Network(network) => {
            let connected = timeout(CONNECT_LIMIT, over_network(network)).await;
            connected.unwrap_or_else(|_| {
                Err(ConnectError::TimedOut {
                    place: network.url.to_string(),
                    limit: CONNECT_LIMIT,
                })
            })
        }
        Endpoint::Ssh(ssh) => relay::start(ssh).await,
    }
}

/// Connects to the socket of an agent, in blocking mode.
///
/// # Errors
/// No agent listens there, or this user may not use the socket.
pub fn connect_socket(path: &Path) -> Result<net::UnixStream, ConnectError> {
    net::UnixStream::connect(path).map_err(|source| socket_error(path, source))
}

/// Returns the error of a socket: no agent, or no right to use it.
fn socket_error(path: &Path, source: io::Error) -> ConnectError {
    let socket = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ConnectError::NotAllowed { socket },
        _ => ConnectError::NoAgent { socket, source },
    }
}

async fn over_network(network: &NetworkEndpoint) -> Result<Stream, ConnectError> {
    let url = &network.url;
    let tls = url
        .is_tls
        .then(|| tls::configuration(network))
        .transpose()?;
    let unreachable = |source| ConnectError::NotReached {
        place: url.to_string(),
        source,
    };
    let stream = TcpStream::connect((url.host(), url.port()))
        .await
        .map_err(unreachable)?;
    prepare(&stream).map_err(unreachable)?;
    match tls {
        None => Ok(Stream::Tcp(stream)),
        Some(tls) => tls::connect(tls, url, stream).await,
    }
}

/// Sets the options of a connection: no delay, and an end if the peer has disappeared.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE)
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
