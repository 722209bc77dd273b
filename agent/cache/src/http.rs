//! The server of a cache in the network of a guest: `GET`, `HEAD` and `PUT` of entries by their paths.
//! Ranges and dates are those of tower-http's file service. An error is a sentence of text.

mod connections;
mod put;

use std::error::Error;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use config::CacheName;
use config::cache::{CachePath, CachePathError};
use http_body_util::BodyExt;
use hyper::body::Frame;
use percent_encoding::percent_decode_str;
use sys::blocking::blocking;
use sys::observer::Observer;
use telemetry::metrics::{CacheResult, Metrics, TransferDirection};
use tokio::net::TcpListener;
use tower_http::services::ServeFile;
use tracing::error;

use crate::{CacheAccess, CacheError};

/// A guest that is served.
pub(crate) struct Guest {
    access: CacheAccess,
    observer: Observer,
}

/// An answer that is no entry.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Path(#[from] CachePathError),
    #[error("a path has no query")]
    Query,
    #[error("the cache has no entry {0}")]
    Missing(CachePath),
    #[error("a cache knows the methods GET, HEAD and PUT")]
    Method,
    #[error("the cache failed; the log of the host's agent says why")]
    Failed,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Path(_) | Self::Query => StatusCode::BAD_REQUEST,
            Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = text(status, &self.to_string());
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allowed = HeaderValue::from_static("GET, HEAD, PUT");
            response.headers_mut().insert(header::ALLOW, allowed);
        }
        response
    }
}

impl From<CacheError> for Refusal {
    fn from(error: CacheError) -> Self {
        failed(&error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        failed(&error)
    }
}

fn failed(error: &(dyn Error + 'static)) -> Refusal {
    error!(error, "a cache failed");
    Refusal::Failed
}

/// Returns a response with a sentence.
fn text(status: StatusCode, sentence: &str) -> Response {
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, plain, format!("{sentence}\n")).into_response()
}

impl CacheAccess {
    /// Serves the guest on a socket in its network. `observer` learns about its activity. Does not
    /// end.
    pub async fn serve(self, listener: TcpListener, observer: Observer) {
        let access = self;
        let guest = Arc::new(Guest { access, observer });
        connections::serve(listener, router(guest)).await;
    }
}

fn router(guest: Arc<Guest>) -> Router {
    Router::new().fallback(answer).with_state(guest)
}

async fn answer(State(guest): State<Arc<Guest>>, request: Request) -> Response {
    guest.observer.observe();
    let path = match path(request.uri()) {
        Ok(path) => path,
        Err(refusal) => return refusal.into_response(),
    };
    match *request.method() {
        Method::GET | Method::HEAD => get(guest, path, request)
            .await
            .unwrap_or_else(Refusal::into_response),
        Method::PUT => put::put(guest, path, request).await,
        _ => Refusal::Method.into_response(),
    }
}

/// Returns the path of an entry in a URI. Clients encode characters such as `:` at will.
fn path(uri: &Uri) -> Result<CachePath, Refusal> {
    if uri.query().is_some() {
        return Err(Refusal::Query);
    }
    let text = uri.path().strip_prefix('/').unwrap_or_default();
    Ok(percent_decode_str(text).decode_utf8_lossy().parse()?)
}

/// Answers with an entry, or a part of it.
async fn get(
    guest: Arc<Guest>,
    path: CachePath,
    mut request: Request,
) -> Result<Response, Refusal> {
    let (name, metrics) = (guest.name(), guest.metrics());
    let (access, sought) = (guest.access.clone(), path.clone());
    let read = *request.method() == Method::GET;
    let found = blocking(move || access.find(&sought, read)).await?;
    let Some(found) = found else {
        metrics.caches.request(name, CacheResult::Miss);
        return Err(Refusal::Missing(path));
    };
    metrics.caches.request(name, CacheResult::Hit);
    if request.headers().contains_key(header::IF_RANGE) {
        // The entry has no validator, so the whole of it is the answer.
        request.headers_mut().remove(header::RANGE);
    }
    let served = ServeFile::new(found.file).try_call(request).await?;
    if served.status() == StatusCode::NOT_FOUND {
        // It was deleted meanwhile.
        return Err(Refusal::Missing(path));
    }
    let counted = {
        let guest = Arc::clone(&guest);
        move |frame: Frame<Bytes>| {
            guest.observer.observe();
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            let (name, caches) = (guest.name(), &guest.metrics().caches);
            caches.bytes(name, TransferDirection::Read, bytes);
            frame
        }
    };
    Ok(served.map(|body| Body::new(body.map_frame(counted))))
}

impl Guest {
    fn name(&self) -> &CacheName {
        &self.access.cache.rules().name
    }

    fn metrics(&self) -> &Metrics {
        self.access.cache.metrics()
    }
}

#[cfg(test)]
mod tests;
