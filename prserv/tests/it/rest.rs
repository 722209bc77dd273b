//! The REST API, its description and the metrics.

use serde_json::{Value as Json, json};

use super::harness::Server;

/// Sends one request on its own connection. Returns the status and the body.
fn request(server: &Server, line: &str, token: &str, body: &str) -> (u16, String) {
    let authorization = if token.is_empty() {
        String::new()
    } else {
        format!("Authorization: Bearer {token}\r\n")
    };
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let reply = String::from_utf8(server.exchange(request.as_bytes())).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (
        head.split_whitespace().nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

fn json_of(reply: &(u16, String)) -> (u16, Json) {
    (
        reply.0,
        serde_json::from_str(&reply.1).unwrap_or_else(|_| panic!("{}", reply.1)),
    )
}

fn row(checksum: &str, value: &str) -> Json {
    json!({"version": "v 1+x", "pkgarch": "all", "checksum": checksum, "value": value})
}

fn pr_request(checksum: &str) -> String {
    json!({"version": "v 1+x", "pkgarch": "all", "checksum": checksum}).to_string()
}

#[test]
fn values_are_read_assigned_imported_and_listed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let send = |line: &str, body: &str| json_of(&request(&server, line, "", body));
    let query = "/api/v1/pr?version=v%201%2Bx&pkgarch=all&checksum=a";
    assert_eq!(
        send(&format!("GET {query}"), ""),
        (404, json!({"error": "no value is recorded"}))
    );
    assert_eq!(
        send("POST /api/v1/pr", &pr_request("a")),
        (200, row("a", "0"))
    );
    assert_eq!(send(&format!("GET {query}"), ""), (200, row("a", "0")));
    assert_eq!(
        send("PUT /api/v1/pr", &row("b", "7.1").to_string()),
        (200, row("b", "7.1"))
    );
    let package = json!({"version": "v 1+x", "pkgarch": "all", "value": "7.1"});
    assert_eq!(
        send("GET /api/v1/packages?version=v+1%2Bx&pkgarch=all", ""),
        (200, package)
    );
    assert_eq!(
        send("GET /api/v1/rows", ""),
        (200, json!([row("b", "7.1")]))
    );
    assert_eq!(
        send("GET /api/v1/rows?history=true", ""),
        (200, json!([row("a", "0"), row("b", "7.1")]))
    );
    assert_eq!(send("GET /api/v1/pr?version=v", "").0, 400);
    assert_eq!(send("POST /api/v1/pr", "{}").0, 422);
    assert_eq!(send("PUT /api/v1/pr", &row("b", "x").to_string()).0, 400);
    assert_eq!(request(&server, "DELETE /api/v1/pr", "", "").0, 405);
}

#[test]
fn a_token_allows_a_reader_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::io::Write::write_all(
        &mut std::fs::File::create(&tokens).unwrap(),
        b"ci one\n\ntwo\n",
    )
    .unwrap();
    let arguments = [
        "--writers",
        "10.0.0.0/8",
        "--token-file",
        tokens.to_str().unwrap(),
    ];
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), &arguments);
    let post_status = |token: &str| request(&server, "POST /api/v1/pr", token, &pr_request("a")).0;
    assert_eq!(post_status(""), 403);
    assert_eq!(post_status("three"), 401);
    assert_eq!(post_status("two"), 200);
    assert_eq!(
        request(&server, "PUT /api/v1/pr", "", &row("b", "1").to_string()).0,
        403
    );
    assert_eq!(
        request(&server, "PUT /api/v1/pr", "one", &row("b", "1").to_string()).0,
        200
    );
}

#[test]
fn every_response_matches_the_description() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let (status, description) = json_of(&request(&server, "GET /api/v1/openapi.json", "", ""));
    assert_eq!(status, 200);
    let bodies = [
        ("post", pr_request("a")),
        ("put", row("a", "1").to_string()),
    ];
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let body = bodies.iter().find(|(name, _)| name == method);
            let parameters = operation.get("parameters").and_then(Json::as_array);
            let query = parameters.map_or("", |_| "?version=v%201%2Bx&pkgarch=all");
            let needs_checksum = parameters.is_some_and(|list| {
                list.iter()
                    .any(|parameter| parameter["$ref"] == json!("#/components/parameters/checksum"))
            });
            let checksum = if needs_checksum { "&checksum=a" } else { "" };
            let line = format!("{} {path}{query}{checksum}", method.to_uppercase());
            let (status, text) = request(&server, &line, "", body.map_or("", |(_, body)| body));
            let described = &operation["responses"][status.to_string()];
            assert!(!described.is_null(), "{line}: {status} {text}");
        }
    }
}

#[test]
fn metrics_count_requests_and_batches() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut client = server.client();
    for checksum in ["a", "b", "b"] {
        client.get("v", checksum).unwrap();
    }
    let (status, text) = request(&server, "GET /metrics", "", "");
    assert_eq!(status, 200);
    for line in [
        "prserv_requests_total{kind=\"get-pr\"} 3",
        "prserv_values_total 2",
        "prserv_batch_size_count 2",
        "prserv_batch_failures_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(text.contains("# TYPE prserv_values_total counter\n"));
    assert!(!text.contains("# EOF"));
    let accept = "Host: localhost\r\nConnection: close\r\nAccept: application/openmetrics-text";
    let answer = server.exchange(format!("GET /metrics HTTP/1.1\r\n{accept}\r\n\r\n").as_bytes());
    assert!(String::from_utf8(answer).unwrap().ends_with("# EOF\n"));
}
