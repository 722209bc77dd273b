//! The protocol over a websocket: each line is a text frame without its newline.

use std::net::TcpStream;

use tungstenite::{Message, WebSocket};

use super::harness::{GREETING, Server, TIMEOUT, database, hash, report};

fn connect(server: &Server, path: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(server.port()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let url = format!("ws://{}{path}", server.address);
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
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
fn requests_and_streams_are_frames_under_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    for path in ["/", "/ws"] {
        let mut socket = connect(&server, path);
        let mut message = report(1, 1);
        message["outhash_siginfo"] = "0".repeat(100_000).into();
        let reply = request(&mut socket, &format!(r#"{{"report": {message}}}"#));
        assert!(reply.contains(&hash(1)), "{reply}");
        assert_eq!(request(&mut socket, r#"{"get-stream": null}"#), "\"ok\"");
        assert_eq!(request(&mut socket, &format!("m {}", hash(1))), hash(1));
        assert_eq!(request(&mut socket, "m none"), "");
        assert_eq!(request(&mut socket, "END"), "ok");
        let all = format!(
            r#"{{"get": {{"method": "m", "taskhash": "{}", "all": true}}}}"#,
            hash(1)
        );
        assert!(request(&mut socket, &all).len() > 100_000, "one frame");
    }
}
