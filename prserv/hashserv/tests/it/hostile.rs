//! Peers that violate the protocol or want too much.

use super::harness::{GREETING, Server, database};

#[test]
fn endless_lines_and_messages_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let line = format!("{GREETING}{}", "x".repeat(70_000));
    assert_eq!(server.exchange(line.as_bytes()), "");
    let chunk = format!("{}\n", "x".repeat(60_000));
    let message = format!("{GREETING}{{\"chunk-stream\": null}}\n{}", chunk.repeat(80));
    assert_eq!(server.exchange(message.as_bytes()), "");
    let stream = format!("{GREETING}{{\"get-stream\": null}}\n{}", "y".repeat(70_000));
    assert_eq!(server.exchange(stream.as_bytes()), "\"ok\"\n");
    assert_eq!(server.dialogue("{\"ping\": {}}\n"), ["{\"alive\": true}"]);
}

#[test]
fn a_peer_has_a_share_of_the_connections() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(database(&directory), &["--connections-per-peer-max", "2"]);
    let (mut one, mut two) = (server.client(), server.client());
    one.get(1).unwrap();
    two.get(1).unwrap();
    assert_eq!(server.dialogue("{\"ping\": {}}\n"), [""; 0]);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let get = |path: &str, headers: &str| {
        server.exchange(format!("GET {path} HTTP/1.1\r\n{headers}\r\n\r\n").as_bytes())
    };
    let metrics = get("/metrics", "Host: localhost\r\nConnection: close");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("hashserv_requests_total"), "{metrics}");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let foreign = get(
        "/",
        &format!("Host: localhost\r\nOrigin: https://evil.example\r\n{upgrade}"),
    );
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let rebound = get("/", &format!("Host: evil.example\r\n{upgrade}"));
    assert!(rebound.starts_with("HTTP/1.1 403"), "{rebound}");
}
