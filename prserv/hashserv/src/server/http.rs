//! HTTP on the same port: websockets and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use linerpc::http::{refuse_foreign, websocket};
use linerpc::metrics_format;
use tokio::sync::watch;

use super::HashEndpoint;
use crate::permission::Permission;

/// Returns the pages of a service. A websocket is served under every other path, as the proxies of
/// public servers use several.
pub(super) fn router(endpoint: HashEndpoint, stop: watch::Receiver<bool>) -> Router {
    let router = Router::new().route("/metrics", get(metrics)).fallback(root);
    refuse_foreign(router, Arc::clone(&endpoint.access))
        .layer(Extension(stop))
        .with_state(endpoint)
}

async fn root(
    State(endpoint): State<HashEndpoint>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => websocket::upgrade(endpoint, stop, upgrade),
        Err(_) => (StatusCode::NOT_FOUND, "No such page\n").into_response(),
    }
}

/// Returns the counters to clients that may read without a login.
async fn metrics(State(endpoint): State<HashEndpoint>, headers: HeaderMap) -> Response {
    let is_allowed = endpoint.access.login && endpoint.access.anonymous.allow(&[Permission::Read]);
    if !is_allowed {
        let text = "the metrics are for clients that may read without a login\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    metrics_format::respond(&headers, &[endpoint.service.metrics().to_text()])
}
