//! The connections of a guest to its cache.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use linerpc::listener::{self, Deadlines, Places, TimedStream, prepare};
use tokio::net::{TcpListener, TcpStream};
use tower::Layer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::{debug, warn};

/// The number of simultaneous connections of a guest; further ones wait until others are idle for
/// [`HEAD_TIMEOUT`].
const CONNECTIONS_MAX: usize = 128;
/// The time limit for the head of a request, also on an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for each part of the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
const DEADLINES: Deadlines = Deadlines {
    first_byte: Duration::from_mins(5),
    idle: None,
    write: Duration::from_mins(1),
};

/// Serves all connections. Does not end.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    if let Err(error) = prepare(&listener, DEADLINES.write) {
        warn!(error = &error as &dyn Error, "cannot set socket options");
    }
    // One peer has all places, and those who wait for one are not closed.
    let places = Places::new(CONNECTIONS_MAX, usize::MAX);
    let serve = |stream| serve_connection(stream, router.clone());
    let never = std::future::pending();
    listener::serve(listener, &places, never, Duration::ZERO, serve).await;
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let service = RequestBodyTimeoutLayer::new(BODY_TIMEOUT).layer(router);
    let ended = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A simple client may end its side behind its request.
        .half_close(true)
        .serve_connection(
            TokioIo::new(TimedStream::new(stream, DEADLINES)),
            TowerToHyperService::new(service),
        )
        .await;
    if let Err(error) = ended {
        let error = &error as &dyn Error;
        debug!(error, "a connection to a cache failed");
    }
}
