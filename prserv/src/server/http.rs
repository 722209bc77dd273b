//! HTTP on the same port: XML-RPC for BitBake up to 1.50.

mod xmlrpc;

use std::io::Cursor;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use crate::desk::Desk;

const BODY_BYTES_MAX: usize = 1024 * 1024;

const HEADER_SECONDS_MAX: Duration = Duration::from_secs(30);

/// Serves a connection whose first bytes have been read, until it ends or `stop` becomes true.
pub(super) async fn serve(
    desk: Desk,
    first: Vec<u8>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let (read, write) = tokio::io::split(stream);
    let stream = TokioIo::new(tokio::io::join(Cursor::new(first).chain(read), write));
    let service = TowerToHyperService::new(router(desk));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(HEADER_SECONDS_MAX)
        .serve_connection(stream, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn router(desk: Desk) -> Router {
    let unsupported = || async { StatusCode::NOT_IMPLEMENTED };
    Router::new()
        .route("/", post(xmlrpc::call).get(unsupported))
        .route("/RPC2", post(xmlrpc::call).get(unsupported))
        .fallback(|| async { (StatusCode::NOT_FOUND, "No such page\n") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}
