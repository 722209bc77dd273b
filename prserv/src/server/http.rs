//! HTTP on the same port: XML-RPC for BitBake up to 1.50, websockets, REST, metrics.

#[cfg(feature = "xmlrpc")]
mod xmlrpc;

mod websocket;

mod rest;

use std::io::Cursor;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::listener::{HalfClose, serve_http};
use crate::session::AuthorizedService;

const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Serves a connection whose first bytes were already read, until it ends or `stop` is cancelled.
pub(super) async fn serve(
    service: AuthorizedService,
    first_bytes: Vec<u8>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> Result<(), hyper::Error> {
    let (read, write) = tokio::io::split(stream);
    let stream = tokio::io::join(Cursor::new(first_bytes).chain(read), write);
    let router = TowerToHyperService::new(router(service, stop.clone()));
    serve_http(stream, router, HalfClose::Answer, stop).await
}

fn router(service: AuthorizedService, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", with_xmlrpc(get(root)))
        .route("/RPC2", with_xmlrpc(get(unsupported)))
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
        .with_state(service)
}

#[cfg(feature = "xmlrpc")]
fn with_xmlrpc(route: MethodRouter<AuthorizedService>) -> MethodRouter<AuthorizedService> {
    route.post(xmlrpc::call)
}

#[cfg(not(feature = "xmlrpc"))]
fn with_xmlrpc(route: MethodRouter<AuthorizedService>) -> MethodRouter<AuthorizedService> {
    route.post(unsupported)
}

/// Upgrades to a websocket. Answers other requests as Python's XML-RPC server does.
async fn root(
    service: State<AuthorizedService>,
    stop: Extension<CancellationToken>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => websocket::upgrade(service, stop, upgrade),
        Err(_) => unsupported().await,
    }
}

async fn unsupported() -> Response {
    StatusCode::NOT_IMPLEMENTED.into_response()
}
