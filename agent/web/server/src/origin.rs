//! The rule against forged requests: a browser sends its cookies with requests that pages of other
//! sites make, so a cookie alone does not authorize a change.

use axum::http::{HeaderMap, HeaderName, Method, Uri, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns true if a request with these properties needs a page of this server as its source.
pub fn needs_own_page(method: &Method, headers: &HeaderMap) -> bool {
    let is_safe = matches!(*method, Method::GET | Method::HEAD);
    // A page of another site can open a WebSocket here, and read what comes.
    !is_safe || headers.contains_key(header::UPGRADE)
}

/// Returns true if a browser says that a page of this server made a request.
///
/// `Sec-Fetch-Site` is the word of the browser itself, which it sends to servers with TLS and to
/// this host. Without it, `Origin` must be the host and port that the request is addressed to.
/// A request with neither does not count, for no browser of today sends one.
pub fn is_from_own_page(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (Some(site), None) => site == "same-origin",
        (Some(_), Some(_)) => false,
        (None, _) => place_of_origin(headers).is_some_and(|it| Some(it) == place_of_host(headers)),
    }
}

/// Returns true if the page of a request came over TLS, perhaps from a proxy in front of this
/// server.
pub fn is_over_tls(headers: &HeaderMap) -> bool {
    let origin = only(headers, &header::ORIGIN);
    origin.is_some_and(|it| it.starts_with("https://"))
}

/// Returns the host of `Origin`, and its port if it is not the default one of the scheme.
fn place_of_origin(headers: &HeaderMap) -> Option<(String, Option<u16>)> {
    let origin: Uri = only(headers, &header::ORIGIN)?.parse().ok()?;
    let default = match origin.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let port = origin.port_u16().filter(|it| *it != default);
    Some((origin.host()?.to_ascii_lowercase(), port))
}

fn place_of_host(headers: &HeaderMap) -> Option<(String, Option<u16>)> {
    let host = only(headers, &header::HOST)?;
    let host: axum::http::uri::Authority = host.parse().ok()?;
    let port = host.port_u16().filter(|it| ![80, 443].contains(it));
    Some((host.host().to_ascii_lowercase(), port))
}

fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_pages_of_this_server_may_change_something() {
        let host = ("host", "build1:8000");
        for (lines, expected) in [
            (&[host][..], false),
            (&[host, ("sec-fetch-site", "same-origin")], true),
            (&[host, ("sec-fetch-site", "same-site")], false),
            (&[host, ("sec-fetch-site", "cross-site")], false),
            // Typed by a person, or a bookmark.
            (&[host, ("sec-fetch-site", "none")], false),
            (
                &[
                    host,
                    ("sec-fetch-site", "same-origin"),
                    ("sec-fetch-site", "none"),
                ],
                false,
            ),
            // The browser's own word counts more than the names.
            (
                &[
                    host,
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "http://build1:8000"),
                ],
                false,
            ),
            (&[host, ("origin", "http://build1:8000")], true),
            (&[host, ("origin", "http://BUILD1:8000")], true),
            (&[host, ("origin", "https://build1:8000")], true),
            (&[host, ("origin", "http://build1:8001")], false),
            (&[host, ("origin", "http://build1")], false),
            (&[host, ("origin", "http://evil.example:8000")], false),
            (&[host, ("origin", "null")], false),
            (&[host, ("origin", "")], false),
            (&[host, ("origin", "ftp://build1:8000")], false),
            (
                &[
                    host,
                    ("origin", "http://build1:8000"),
                    ("origin", "http://evil.example"),
                ],
                false,
            ),
            (&[("host", "build1"), ("origin", "http://build1")], true),
            (
                &[("host", "build1:443"), ("origin", "https://build1")],
                true,
            ),
            (
                &[("host", "[::1]:8000"), ("origin", "http://[::1]:8000")],
                true,
            ),
            (&[("origin", "http://build1")], false),
        ] {
            assert_eq!(is_from_own_page(&headers(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn changes_and_web_sockets_need_a_page_of_this_server() {
        let none = headers(&[]);
        let upgrade = headers(&[("upgrade", "websocket")]);
        assert!(!needs_own_page(&Method::GET, &none));
        assert!(!needs_own_page(&Method::HEAD, &none));
        assert!(needs_own_page(&Method::GET, &upgrade));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            assert!(needs_own_page(&method, &none), "{method}");
        }
    }
}
