//! Answers with pages and the files that they refer to.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sys::file::digest_of;

/// The policy of the pages: everything comes from this server, and nothing is inline.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Returns the response with a page; without its content if the browser has it already.
pub fn page(request: &HeaderMap, html: String) -> Response {
    let tag = format!("\"{}\"", &digest_of(html.as_bytes()).as_str()[..16]);
    let known = request.get_all(header::IF_NONE_MATCH).iter();
    let is_known = known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::ETAG, tag),
    ];
    if is_known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, html).into_response()
    }
}

/// Returns the response with a page that no browser keeps.
pub fn passing(status: StatusCode, html: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, html).into_response()
}

/// Adds the headers that keep pages from doing what they are not made for.
pub async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Returns a file that pages refer to; `None` if there is no file of this name.
pub fn file(name: &str) -> Option<Response> {
    let asset = web::asset(name)?;
    let headers = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    Some((headers, asset.content).into_response())
}

/// Returns the redirection of a browser to a path of this server.
pub fn see_other(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(header::LOCATION, path.to_owned())]).into_response()
}

/// Returns a path of this server; `/` instead of the address of another one.
pub fn own_path(next: &str) -> &str {
    // Browsers take `//host` and `/\host` for addresses, and drop tabs and line ends.
    let rest = next.strip_prefix('/');
    let is_path = rest.is_some_and(|it| !it.starts_with(['/', '\\']));
    let is_plain = next.bytes().all(|it| it.is_ascii_graphic());
    if is_path && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_to_pages_of_this_server_only() {
        for (next, expected) in [
            ("/builds?machine=demo", "/builds?machine=demo"),
            ("/", "/"),
            ("", "/"),
            ("builds", "/"),
            ("https://evil.example", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("/\t/evil.example", "/"),
            ("/a\r\nSet-Cookie: x", "/"),
        ] {
            assert_eq!(own_path(next), expected, "{next}");
        }
    }
}
