//! Answers as Toaster's server gives them.

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use serde::Serialize;

use crate::python;

const HEALTH: &str = "<!DOCTYPE html>
<html lang=\"en\">
  <head><title>Toaster Health</title></head>
  <body>Ok</body>
</html>

";

/// Answers other methods than those of the route as Toaster does.
pub fn read_only<S: Clone + Send + Sync + 'static>(route: MethodRouter<S>) -> MethodRouter<S> {
    route.fallback(async || page(StatusCode::FORBIDDEN, "Forbidden"))
}

/// Returns the answer for a path without a route, such as one with a trailing slash.
pub fn not_found() -> Response {
    page(StatusCode::NOT_FOUND, "Not Found")
}

/// Returns the answer that builds cannot be read.
pub fn failed() -> Response {
    page(StatusCode::INTERNAL_SERVER_ERROR, "Server Error")
}

/// Returns the page of a server that works.
pub fn health() -> Response {
    html(StatusCode::OK, HEALTH)
}

/// A document in JSON.
#[derive(Debug)]
pub struct Json(pub Bytes);

impl Json {
    /// Returns the document of a value.
    pub fn of(value: &impl Serialize) -> Self {
        Self(python::to_json(value).into())
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

fn page(status: StatusCode, text: &str) -> Response {
    let body = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n   <head><title>{text}</title></head>\n   <body>{text}</body>\n</html>\n"
    );
    html(status, body)
}

fn html(status: StatusCode, body: impl Into<Body>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    (status, kind, body.into()).into_response()
}
