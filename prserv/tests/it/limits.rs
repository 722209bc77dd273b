//! Limits and deadlines of connections, with peers that are idle, slow or numerous.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::harness::{Client, GREETING, Server, TIMEOUT, prserv, wait_until};

const PING: &str = "{\"ping\": {}}\n";

/// Connects from a loopback address, which is a peer of its own.
fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())
        .unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    stream
}

/// Sends a ping and returns true if it is answered.
fn is_served(stream: &mut TcpStream) -> bool {
    let sent = stream.write_all(format!("{GREETING}{PING}").as_bytes());
    let mut reply = [0; 16];
    sent.is_ok() && stream.read_exact(&mut reply).is_ok() && reply.starts_with(b"{\"alive\"")
}

fn server(arguments: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), arguments);
    (dir, server)
}

#[test]
fn a_peer_with_all_of_its_places_does_not_lock_out_another() {
    let (_dir, server) = server(&["--connections-max", "6", "--connections-per-peer-max", "4"]);
    let mut held: Vec<_> = (0..4).map(|_| connect_from(1, server.address)).collect();
    assert!(held.iter_mut().all(is_served));
    for _ in 0..50 {
        assert!(!is_served(&mut connect_from(1, server.address)));
    }
    assert!(is_served(&mut connect_from(2, server.address)));
    held.pop();
    wait_until("the place is free again", || {
        is_served(&mut connect_from(1, server.address))
    });
    let warnings = server.log().matches("cannot accept a connection").count();
    assert!((1..5).contains(&warnings), "{}", server.log());
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let (_dir, server) = server(&["--idle-seconds-max", "1"]);
    let mut idle = connect_from(1, server.address);
    assert!(is_served(&mut idle));
    let mut busy = server.client();
    let mut end = [0; 1];
    idle.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    wait_until("the idle connection is closed", || {
        busy.request(&json!({"ping": {}})).unwrap();
        idle.read(&mut end).is_ok_and(|bytes| bytes == 0)
    });
}

#[test]
fn a_server_without_free_descriptors_still_answers() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let program = prserv().get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "a shell sets the limit")]
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    command
        .arg(program)
        .args(["serve", "--listen", "127.0.0.1:0", "--db"])
        .arg(&db);
    let server = Server::launch(command);
    let mut early = Client::connect(server.address).unwrap();
    early.get("v", "c").unwrap();
    let idle: Vec<_> = (0..200)
        .map(|number| connect_from(2 + number % 50, server.address))
        .collect();
    wait_until("connections are refused", || {
        server.log().contains("too few descriptors left")
    });
    // An export opens the database.
    assert_eq!(early.rows().len(), 1);
    assert_eq!(early.get("v", "d").unwrap(), "1");
    drop(idle);
    wait_until("connections are accepted again", || {
        is_served(&mut connect_from(1, server.address))
    });
}
