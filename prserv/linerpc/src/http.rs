//! HTTP on the port of the line-based protocol.

pub mod websocket;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use crate::host_names::HostNames;

const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a connection whose first bytes were already read, until it ends or `stop` becomes true.
pub async fn serve(
    router: Router,
    first_bytes: Vec<u8>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), hyper::Error> {
    let (read, write) = tokio::io::split(stream);
    let stream = TokioIo::new(tokio::io::join(Cursor::new(first_bytes).chain(read), write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .half_close(true)
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(stream, TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        _ = stop.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Lets a router refuse requests that a browser sends on behalf of another site.
pub fn refuse_foreign<S, N>(router: Router<S>, names: Arc<N>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    N: AsRef<HostNames> + Send + Sync + 'static,
{
    router.layer(middleware::from_fn_with_state(names, check_names::<N>))
}

async fn check_names<N: AsRef<HostNames>>(
    State(names): State<Arc<N>>,
    request: Request,
    next: Next,
) -> Response {
    let (names, headers) = (names.as_ref().as_ref(), request.headers());
    let checked = names
        .check_host(request.uri(), headers)
        .and_then(|()| names.check_origin(headers));
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => (StatusCode::FORBIDDEN, format!("{error}\n")).into_response(),
    }
}
