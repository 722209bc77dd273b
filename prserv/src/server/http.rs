//! HTTP on the same port: XML-RPC for BitBake up to 1.50, websockets, REST, metrics.

#[cfg(feature = "xmlrpc")]
mod xmlrpc;

mod rest;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use hyper::body::{Frame, SizeHint};
use linerpc::http::{refuse_foreign, websocket};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::access;
use crate::session::{AuthorizedService, RequestError};

const BODY_BYTES_MAX: usize = 128 * 1024;

/// Returns the pages of a service.
pub(super) fn router(service: AuthorizedService, stop: watch::Receiver<bool>) -> Router {
    let router = Router::new()
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
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    refuse_foreign(router, Arc::clone(&service.access))
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
    State(service): State<AuthorizedService>,
    headers: HeaderMap,
    Extension(stop): Extension<watch::Receiver<bool>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => match with_token(service, &headers) {
            Ok(service) => websocket::upgrade(service, stop, upgrade),
            Err(error) => (StatusCode::UNAUTHORIZED, format!("{error}\n")).into_response(),
        },
        Err(_) => unsupported().await,
    }
}

/// Grants the rights of the token of a request, if it has one.
///
/// # Errors
/// The token is unknown.
fn with_token(
    mut service: AuthorizedService,
    headers: &HeaderMap,
) -> Result<AuthorizedService, RequestError> {
    let header = headers.get(AUTHORIZATION);
    let token = header.and_then(|value| value.to_str().ok());
    if let Some(token) = token.and_then(access::bearer) {
        service.present(token)?;
    }
    Ok(service)
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
