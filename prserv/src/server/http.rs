//! HTTP on the same port: XML-RPC for BitBake up to 1.50, websockets, REST, metrics.

mod xmlrpc;

mod websocket;

mod rest;

use std::io::Cursor;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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
    let service = TowerToHyperService::new(router(desk, stop.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(HEADER_SECONDS_MAX)
        .serve_connection(stream, service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn router(desk: Desk, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/", get(root).post(xmlrpc::call))
        .route("/RPC2", get(unsupported).post(xmlrpc::call))
        .route(
            "/api/v1/pr",
            get(rest::test).post(rest::get).put(rest::import),
        )
        .route("/api/v1/packages", get(rest::package))
        .route("/api/v1/rows", get(rest::rows))
        .route("/api/v1/openapi.json", get(rest::openapi))
        .route("/metrics", get(rest::metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "No such page\n") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(Extension(stop))
        .with_state(desk)
}

/// A websocket; anything else is what Python's XML-RPC server does not know.
async fn root(
    desk: State<Desk>,
    stop: Extension<watch::Receiver<bool>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => websocket::upgrade(desk, stop, upgrade),
        Err(_) => unsupported().await,
    }
}

async fn unsupported() -> Response {
    StatusCode::NOT_IMPLEMENTED.into_response()
}
