//! Who may do what over HTTP: tokens and their scopes, limits, secrecy, and what a
//! client is told that may not.

use std::io::{Read, Write};
use std::sync::Arc;

use serde_json::Value;
use tests::api_host::{ApiHost, request};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const HOST: &str = "http://agent";

/// The status of an answer; every refusal must say in JSON what it is.
fn status(answer: reqwest::blocking::Response) -> u16 {
    let status = answer.status().as_u16();
    if status >= 400 {
        let kind = answer.headers()["content-type"].clone();
        assert_eq!(kind, "application/problem+json");
        let problem: Value = answer.json().unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], "about:blank");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{problem}");
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    }
    status
}

#[test]
fn a_token_opens_what_its_scope_says() {
    let host = ApiHost::new("");
    host.allow(&[("read", "r"), ("submit", "s"), ("admin", "a")]);
    let build = r#"{"machine": "linux", "sources": []}"#;
    for (method, path, body, answers) in [
        // Without a token, with a wrong one, with read, submit, admin.
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
        assert_eq!(found, answers, "{method} {path}");
    }
}

#[test]
fn the_socket_needs_no_token_and_a_token_goes_with_its_line() {
    let host = ApiHost::new("");
    let url = format!("{HOST}/api/v1/builds");
    let local = request(&host.local(), "GET", &url).send().unwrap();
    assert_eq!(local.status(), 200);
    host.allow(&[("read", "r")]);
    let asked = || {
        let request = host.remote("GET", "/api/v1/builds").bearer_auth("r");
        request.send().unwrap()
    };
    assert_eq!(asked().status(), 200);
    host.allow(&[]);
    let refused = asked();
    assert_eq!(
        refused.headers()["www-authenticate"],
        "Bearer error=\"invalid_token\""
    );
    assert_eq!(status(refused), 401);
}

#[test]
fn who_asks_too_often_waits_and_the_socket_does_not() {
    let host = ApiHost::new("http.requests_per_second_max = 1\n");
    let answers: Vec<_> = (0..12).map(|_| host.get("/health")).collect();
    let refused = answers.into_iter().find(|answer| answer.status() == 429);
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
fn with_a_certificate_it_is_spoken_in_secret_and_a_new_one_is_taken_up() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("c"), directory.path().join("k"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        tests::write_file(&certificate, &made.cert.pem());
        tests::write_file(&key, &made.signing_key.serialize_pem());
        made.cert.der().clone()
    };
    let first = renew();
    let host = ApiHost::new(&format!(
        "http.tls_certificate = \"{}\"\nhttp.tls_key = \"{}\"\n",
        certificate.display(),
        key.display()
    ));
    let ask = |trusted: &tokio_rustls::rustls::pki_types::CertificateDer<'static>| {
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
    assert!(ask(&first).unwrap().contains("<body>Ok</body>"));
    assert!(
        host.remote("GET", "/health").send().is_err(),
        "in the clear"
    );
    let second = renew();
    assert!(ask(&second).unwrap().contains("<body>Ok</body>"));
    assert!(ask(&first).is_err());
}
