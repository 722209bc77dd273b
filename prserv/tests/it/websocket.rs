//! BitBake's protocol over a websocket.

use std::net::TcpStream;

use tungstenite::{Message, WebSocket};

use super::harness::{GREETING, Server, TIMEOUT};

fn connect(server: &Server) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{}/", server.address), stream).unwrap();
    for line in GREETING.split_terminator('\n') {
        socket.send(Message::text(line)).unwrap();
    }
    socket
}

fn request(socket: &mut WebSocket<TcpStream>, request: &str) -> String {
    socket.send(Message::text(request)).unwrap();
    socket
        .read()
        .unwrap()
        .into_text()
        .unwrap()
        .as_str()
        .to_owned()
}

#[test]
fn each_line_is_a_frame_and_long_replies_are_not_chunked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut client = server.client();
    for number in 0..600 {
        client
            .get("long-1.0-r0", &format!("{number:064x}"))
            .unwrap();
    }
    let mut socket = connect(&server);
    assert_eq!(
        request(&mut socket, r#"{"ping": {}}"#),
        r#"{"alive": true}"#
    );
    let get =
        r#"{"get-pr": {"version": "v", "pkgarch": "all", "checksum": "c", "history": false}}"#;
    assert_eq!(request(&mut socket, get), r#"{"value": "0"}"#);
    let export = r#"{"export": {"version": "long-1.0-r0", "pkgarch": null, "checksum": null, "colinfo": false, "history": true}}"#;
    let reply = request(&mut socket, export);
    assert!(reply.len() > 65536, "{}", reply.len());
    assert!(reply.ends_with("\"value\": \"599\"}]}"));
}

#[test]
fn a_protocol_error_and_a_shutdown_close_the_socket() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut socket = connect(&server);
    socket.send(Message::text("nonsense")).unwrap();
    assert!(socket.read().is_err());
    let mut socket = connect(&server);
    request(&mut socket, r#"{"ping": {}}"#);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(socket.read().is_err());
}
