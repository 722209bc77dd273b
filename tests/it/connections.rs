//! Places and deadlines of connections to the HTTP API.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tests::api_host::{ApiHost, request};
use tests::wait_until;

const REQUEST: &[u8] = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Connects from a loopback address, which is a client of its own.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())
        .unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    stream
}

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
}
