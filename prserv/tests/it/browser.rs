//! Requests that a browser sends on behalf of a page of another site.

use super::harness::Server;

/// Sends a request with these additional header lines. Returns the status line and the rest.
fn send(server: &Server, line: &str, headers: &str, body: &str) -> (String, String) {
    let length = body.len();
    let close = if headers.contains("Upgrade") {
        ""
    } else {
        "Connection: close\r\n"
    };
    let request =
        format!("{line} HTTP/1.1\r\n{close}{headers}Content-Length: {length}\r\n\r\n{body}");
    let reply = String::from_utf8(server.exchange(request.as_bytes())).unwrap();
    let (status, rest) = reply.split_once("\r\n").unwrap();
    (status.to_owned(), rest.to_owned())
}

fn import_call() -> String {
    let params = ["v", "all", "c", "<int>999999</int>"]
        .map(|param| format!("<param><value>{param}</value></param>"))
        .concat();
    format!("<methodCall><methodName>importone</methodName><params>{params}</params></methodCall>")
}

#[test]
fn requests_from_pages_of_other_sites_are_refused_on_every_route() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let host = format!("Host: {}\r\n", server.address);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let json = r#"{"version": "v", "pkgarch": "all", "checksum": "c"}"#;
    let foreign = [
        format!("{host}Origin: https://evil.example\r\n"),
        format!("{host}Origin: null\r\n"),
        "Host: rebound.example\r\n".to_owned(),
        "Host: rebound.example\r\nOrigin: http://rebound.example\r\n".to_owned(),
        format!("{host}Host: rebound.example\r\n"),
    ];
    for headers in &foreign {
        for (line, more, body) in [
            (
                "POST /",
                "Content-Type: text/xml\r\n",
                import_call().as_str(),
            ),
            ("POST /RPC2", "Content-Type: text/xml\r\n", &import_call()),
            ("GET /", upgrade, ""),
            ("GET /api/v1/rows", "", ""),
            ("GET /metrics", "", ""),
            (
                "POST /api/v1/pr",
                "Content-Type: application/json\r\n",
                json,
            ),
            ("GET /unknown", "", ""),
        ] {
            let (status, rest) = send(&server, line, &format!("{headers}{more}"), body);
            assert_eq!(status, "HTTP/1.1 403 Forbidden", "{line} {headers}\n{rest}");
            assert!(rest.contains("allowed host names"), "{rest}");
        }
    }
    assert!(server.client().rows().is_empty());
    let own = format!("{host}Origin: http://{}\r\n", server.address);
    let (status, _) = send(&server, "GET /api/v1/rows", &own, "");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let (status, _) = send(&server, "GET /", &format!("{own}{upgrade}"), "");
    assert_eq!(status, "HTTP/1.1 101 Switching Protocols");
}

#[test]
fn the_operator_allows_the_name_of_a_reverse_proxy() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--allowed-host", "prs.example"];
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), &arguments);
    let forwarded = "Host: prs.example\r\nOrigin: https://prs.example\r\n";
    let rewritten = "Host: 127.0.0.1:8585\r\nOrigin: https://prs.example\r\n";
    for headers in [forwarded, rewritten] {
        let (status, _) = send(&server, "GET /api/v1/rows", headers, "");
        assert_eq!(status, "HTTP/1.1 200 OK", "{headers}");
    }
    let (status, _) = send(&server, "GET /api/v1/rows", "Host: other.example\r\n", "");
    assert_eq!(status, "HTTP/1.1 403 Forbidden");
}

#[test]
fn an_xmlrpc_call_needs_the_content_type_that_pages_may_not_send() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for kind in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/plain; text/xml\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: text/xmlx\r\n",
    ] {
        for path in ["/", "/RPC2"] {
            let headers = format!("Host: localhost\r\n{kind}");
            let (status, _) = send(&server, &format!("POST {path}"), &headers, &import_call());
            assert_eq!(status, "HTTP/1.1 415 Unsupported Media Type", "{kind}");
        }
    }
    assert!(server.client().rows().is_empty());
    let headers = "Host: localhost\r\nContent-Type: Text/XML; charset=utf-8\r\n";
    let (status, _) = send(&server, "POST /", headers, &import_call());
    assert_eq!(status, "HTTP/1.1 200 OK");
}
