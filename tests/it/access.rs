//! Access to the HTTP API: tokens and their scopes, the rate limit, TLS, and the responses to
//! requests that are refused.

use std::io::{Read, Write};
use std::sync::Arc;

use serde_json::Value;
use tests::api_host::{ApiHost, request};
use tests::attacks::refused;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const HOST: &str = "http://agent";

/// Returns the status of a response, and checks that a refusal is described in JSON.
fn status(response: reqwest::blocking::Response) -> u16 {
    let status = response.status().as_u16();
    if status >= 400 {
        let content_type = response.headers()["content-type"].clone();
        assert_eq!(content_type, "application/problem+json");
        let problem: Value = response.json().unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{problem}");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    }
    status
}

#[test]
fn a_token_allows_what_its_scope_includes() {
    let host = ApiHost::new("");
    host.allow(&[("read", "r"), ("submit", "s"), ("admin", "a")]);
    let build = r#"{"machine": "linux", "sources": []}"#;
    for (method, path, body, expected) in [
        // The statuses without a token, with a wrong one, and with the scopes read, submit, admin.
        ("GET", "/api/v1/builds", "", [401, 401, 200, 200, 200]),
        ("GET", "/api/v1/builds/1", "", [401, 401, 404, 404, 404]),
        ("POST", "/api/v1/builds", build, [401, 401, 403, 400, 400]),
        (
            "POST",
            "/api/v1/builds/1/cancel",
            "",
            [401, 401, 403, 404, 404],
        ),
        ("PUT", "/api/v1/sources/0", "", [401, 401, 403, 400, 400]),
        (
            "POST",
            "/api/v1/doctor/repair",
            "1",
            [401, 401, 403, 403, 422],
        ),
        ("GET", "/api/v1/openapi.json", "", [200; 5]),
        ("GET", "/toastergui/api/builds", "", [200; 5]),
    ] {
        let tokens = [None, Some("x"), Some("r"), Some("s"), Some("a")];
        let found = tokens.map(|token| {
            let mut request = host.remote(method, path).body(body);
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let request = request.header("content-type", "application/json");
            status(request.send().unwrap())
        });
        assert_eq!(found, expected, "{method} {path}");
    }
}

#[test]
fn requests_from_pages_of_other_sites_are_refused() {
    let host = ApiHost::new("http.allowed_hosts = [\"builds.example\"]\n");
    host.allow(&[("admin", "a")]);
    let own = format!("http://{}", host.address);
    let get = |path: &str, headers: &[(&str, &str)]| {
        let request = host.remote("GET", path).bearer_auth("a");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        status(request.send().unwrap())
    };
    for path in ["/metrics", "/toastergui/api/builds", "/api/v1/builds", "/x"] {
        for headers in [
            [("origin", "https://evil.example")].as_slice(),
            &[("origin", "null")],
            &[("host", "rebound.example")],
            &[
                ("host", "rebound.example"),
                ("origin", "http://rebound.example"),
            ],
        ] {
            assert_eq!(get(path, headers), 403, "{path} {headers:?}");
            refused("browser -> API", &format!("{path} with {headers:?}"), "403");
        }
    }
    for headers in [
        [("origin", own.as_str())].as_slice(),
        &[("host", "localhost")],
        &[
            ("host", "builds.example"),
            ("origin", "https://builds.example"),
        ],
        &[("origin", "https://builds.example")],
    ] {
        assert_eq!(get("/api/v1/builds", headers), 200, "{headers:?}");
    }
    let url = format!("{HOST}/api/v1/builds");
    let local = request(&host.local(), "GET", &url).header("origin", "https://evil.example");
    assert_eq!(status(local.send().unwrap()), 403);
}

#[test]
fn the_socket_needs_no_token_and_a_removed_token_is_refused() {
    let host = ApiHost::new("");
    let url = format!("{HOST}/api/v1/builds");
    let local = request(&host.local(), "GET", &url).send().unwrap();
    assert_eq!(local.status(), 200);
    host.allow(&[("read", "r")]);
    let send = || {
        let request = host.remote("GET", "/api/v1/builds").bearer_auth("r");
        request.send().unwrap()
    };
    assert_eq!(send().status(), 200);
    host.allow(&[]);
    let refused = send();
    assert_eq!(
        refused.headers()["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(status(refused), 401);
}

#[test]
fn tcp_clients_are_rate_limited_and_clients_of_the_socket_are_not() {
    let host = ApiHost::new("http.requests_per_second_max = 1\n");
    // A slow machine needs more requests to exceed the limit.
    let mut responses = (0..1000).map(|_| host.get("/health"));
    let refused = responses.find(|response| response.status() == 429);
    let refused = refused.expect("a limit");
    let wait = refused.headers()["retry-after"].to_str().unwrap();
    assert!((1..=2).contains(&wait.parse::<u32>().unwrap()), "{wait}");
    assert_eq!(status(refused), 429);
    let url = format!("{HOST}/health");
    for _ in 0..12 {
        let answer = request(&host.local(), "GET", &url).send().unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn tls_is_used_with_a_certificate_and_a_renewed_certificate_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("c"), directory.path().join("k"));
    let renew = || {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        tests::write_file(&certificate, &pair.cert.pem());
        tests::write_file(&key, &pair.signing_key.serialize_pem());
        pair.cert.der().clone()
    };
    let first = renew();
    let host = ApiHost::new(&format!(
        "http.tls_certificate = \"{}\"\nhttp.tls_key = \"{}\"\n",
        certificate.display(),
        key.display()
    ));
    let get = |trusted: &tokio_rustls::rustls::pki_types::CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let settings = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let client = ClientConnection::new(Arc::new(settings), name).unwrap();
        let stream = std::net::TcpStream::connect(host.address).unwrap();
        let mut stream = StreamOwned::new(client, stream);
        stream
            .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    assert!(get(&first).unwrap().contains("<body>Ok</body>"));
    assert!(
        host.remote("GET", "/health").send().is_err(),
        "requests without TLS fail"
    );
    let second = renew();
    assert!(get(&second).unwrap().contains("<body>Ok</body>"));
    assert!(get(&first).is_err());
}
