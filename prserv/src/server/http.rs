//! HTTP on the same port: XML-RPC for BitBake up to 1.50, websockets, REST, metrics.

#[cfg(feature = "xmlrpc")]
mod xmlrpc;

mod websocket;

mod rest;

use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper::body::{Frame, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::access::Access;
use crate::session::AuthorizedService;

const BODY_BYTES_MAX: usize = 128 * 1024;

const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a connection whose first bytes were already read, until it ends or `stop` becomes true.
pub(super) async fn serve(
    service: AuthorizedService,
    first_bytes: Vec<u8>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let (read, write) = tokio::io::split(stream);
    let stream = TokioIo::new(tokio::io::join(Cursor::new(first_bytes).chain(read), write));
    let router = TowerToHyperService::new(router(service, stop.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(stream, router)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn router(service: AuthorizedService, stop: watch::Receiver<bool>) -> Router {
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
        .layer(middleware::from_fn_with_state(
            Arc::clone(&service.access),
            refuse_foreign,
        ))
        .layer(Extension(stop))
        .with_state(service)
}

/// Refuses requests that a browser sends on behalf of another site.
async fn refuse_foreign(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let (names, headers) = (&access.host_names, request.headers());
    let checked = names
        .check_host(request.uri(), headers)
        .and_then(|()| names.check_origin(headers));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => (StatusCode::FORBIDDEN, format!("{error}\n")).into_response(),
    }
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
    stop: Extension<watch::Receiver<bool>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => websocket::upgrade(service, stop, upgrade),
        Err(_) => unsupported().await,
    }
}

/// Keeps the permit of an export until the response is sent or its connection has ended.
fn keep_until_sent(response: Response, permit: OwnedSemaphorePermit) -> Response {
    let (head, body) = response.into_parts();
    let body = PermittedBody {
        body,
        _permit: permit,
    };
    Response::from_parts(head, Body::new(body))
}

/// A response body with the permit of its export.
struct PermittedBody {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for PermittedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn unsupported() -> Response {
    StatusCode::NOT_IMPLEMENTED.into_response()
}
