//! The description of the interface, which is kept by hand. Tests compare it with the routes, with the types
//! of bodies, and with answers.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The OpenAPI description of every route but those of the pages.
pub const OPENAPI: &str = include_str!("openapi.json");

pub(super) async fn show() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

#[cfg(test)]
mod tests;
