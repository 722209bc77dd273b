//! The accept loop and the HTTP/1.1 connection that the PR service and the agent's API share.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The pause after a failed accept, for example because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time that a client has to send the head of a request, also between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening socket.
pub trait Listener: Sync {
    /// An accepted connection.
    type Connection: Send;

    /// Accepts a connection. Cancel-safe.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = (TcpStream, SocketAddr);

    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send {
        self.accept()
    }
}

/// The limits of an accept loop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One permit per concurrent connection; `None` is unlimited. Clients beyond the limit wait to
    /// be accepted.
    pub permits: Option<Arc<Semaphore>>,
    /// The time that connections have to end after a shutdown has begun.
    pub grace: Duration,
}

/// Serves every connection by a task until `shutdown` completes. Then closes the listener, cancels
/// the token that all tasks received, and returns when they have ended, at the latest after the
/// grace period.
///
/// Dropping the future closes the listener and all connections immediately.
pub async fn serve<L, F>(
    listener: L,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
    serve_connection: impl Fn(L::Connection, CancellationToken) -> F,
) where
    L: Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let stop = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, limits.permits.as_ref()) => match accepted {
                Ok((connection, permit)) => {
                    let served = serve_connection(connection, stop.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn Error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(error = &error as &dyn Error, "the task of a connection failed");
                }
            }
        }
    }
    drop(listener);
    stop.cancel();
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.grace, all_ended).await.is_err() {
        tracing::info!(
            connections = connections.len(),
            "closing connections that did not end in time"
        );
    }
}

/// Accepts a connection as soon as there is a permit for it.
async fn accept<L: Listener>(
    listener: &L,
    permits: Option<&Arc<Semaphore>>,
) -> io::Result<(L::Connection, Option<OwnedSemaphorePermit>)> {
    let permit = match permits {
        Some(permits) => Some(
            Arc::clone(permits)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?,
        ),
        None => None,
    };
    Ok((listener.accept().await?, permit))
}

/// The effect of a client that closes its sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HalfClose {
    /// Its requests are answered before the connection is closed.
    Answer,
    /// It has disconnected, and its requests are cancelled.
    Disconnect,
}

/// Serves HTTP/1.1 on a stream until the client disconnects or `stop` is cancelled, which lets the
/// current request finish.
pub async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: impl Service<Request<Incoming>, Response = Response, Error = Infallible>,
    half_close: HalfClose,
    stop: CancellationToken,
) -> Result<(), hyper::Error> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(half_close == HalfClose::Answer)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}
