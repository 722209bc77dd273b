//! Errors of the framework in the form of all others: JSON with a sentence.

use axum::body::to_bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::Refusal;

/// The most bytes of a sentence of the framework.
const SENTENCE_MAX: usize = 4_096;

pub(super) async fn no_such_path(uri: Uri) -> Response {
    let message = format!(
        "the interface has no path {}; /farm/v1/openapi.json describes all",
        uri.path()
    );
    Refusal(StatusCode::NOT_FOUND, message).into_response()
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let path = uri.path();
    let message = format!("{path} has no method {method}; /farm/v1/openapi.json describes all");
    Refusal(StatusCode::METHOD_NOT_ALLOWED, message).into_response()
}

/// Turns the text of an error, such as a document that cannot be read, into JSON.
pub(super) async fn as_json(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    let is_text = kind.is_some_and(|it| it.as_bytes().starts_with(b"text/plain"));
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let text = to_bytes(response.into_body(), SENTENCE_MAX).await;
    let text = text.map(|it| String::from_utf8_lossy(&it).into_owned());
    let message = text.unwrap_or_else(|_| status.to_string());
    Refusal(status, message).into_response()
}
