//! Places and deadlines of connections to the HTTP API.

use std::io::{Read, Write};
use std::net::TcpStream;

use tests::api_host::{ApiHost, request};
use tests::attacks::refused;
use tests::net::connect_from;
use tests::wait_until;

const REQUEST: &[u8] = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn is_served(stream: &mut TcpStream) -> bool {
    let mut reply = [0; 12];
    stream.write_all(REQUEST).is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && &reply == b"HTTP/1.1 200"
}

#[test]
fn slow_readers_lock_out_neither_other_clients_nor_the_socket_and_are_closed() {
    let settings = "http.connections_per_peer_max = 4\nhttp.write_seconds_max = 1\n";
    let host = ApiHost::new(settings);
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = connect_from(1, host.address);
            // About 15 MB of responses, which fill all buffers.
            let _ = stream.write_all(&REQUEST.repeat(200));
            stream
        })
        .collect();
    assert!(
        !is_served(&mut connect_from(1, host.address)),
        "a fifth connection"
    );
    refused(
        "network -> API",
        "a connection beyond a client's share",
        "connections_per_peer_max",
    );
    assert!(
        is_served(&mut connect_from(2, host.address)),
        "another client"
    );
    let local = request(&host.local(), "GET", "http://agent/api/v1/builds");
    assert_eq!(local.send().unwrap().status(), 200);
    wait_until("the slow readers have lost their places", || {
        is_served(&mut connect_from(1, host.address))
    });
    drop(slow);
    refused("network -> API", "read no responses", "write_seconds_max");
}

#[test]
fn a_client_that_stops_within_a_body_loses_its_place() {
    let host = ApiHost::new("http.connections_per_peer_max = 1\nhttp.body_seconds_max = 1\n");
    host.allow(&[("submit", "s")]);
    let mut silent = connect_from(1, host.address);
    let request = "POST /api/v1/builds HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    silent.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    silent.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    refused("network -> API", "a body without an end", &reply);
    wait_until("the place is free again", || {
        is_served(&mut connect_from(1, host.address))
    });
}
