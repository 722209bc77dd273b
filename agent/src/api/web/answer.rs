//! The responses of the pages: HTML with a validator, and errors as pages.

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use web::{Message, Section, Template, Viewer};

use super::super::error::ApiError;
use super::frame;
use state::AgentState;

/// Returns the response with a page; without its content if the browser has it already.
pub(super) fn page(request: &HeaderMap, page: &impl Template) -> Result<Response, ApiError> {
    let html = page.render().map_err(|error| ApiError::internal(&error))?;
    Ok(web_server::answer::page(request, html))
}

/// Returns the response that shows an error as a page.
pub(super) fn error_page(agent: &AgentState, viewer: Viewer, error: ApiError) -> Response {
    let (status, detail, header) = error.parts();
    let title = status.canonical_reason().unwrap_or_default();
    let message = Message {
        frame: frame(agent, viewer, Section::None, title),
        detail,
    };
    let html = message.render().unwrap_or_default();
    let kind = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = (status, kind, html).into_response();
    response.headers_mut().extend(header);
    response
}
