//! Tokens of clients: in the greeting of the JSON stream, over websockets and with XML-RPC; and the
//! Unix socket, which needs none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;

use serde_json::json;

use super::harness::{Server, TIMEOUT, prserv, tuple};

const READERS: [&str; 2] = ["--writers", "10.0.0.0/8"];

/// Starts a server where only clients with the token `secret` may write.
fn start(dir: &Path, arguments: &[&str]) -> Server {
    sys::file::replace(&dir.join("tokens"), b"ci secret\n").unwrap();
    let tokens = dir.join("tokens");
    let token_file = ["--token-file", tokens.to_str().unwrap()];
    let arguments = [&token_file[..], arguments].concat();
    Server::start_with(dir.join("prserv.sqlite3"), &arguments)
}

/// Sends requests after a greeting with a token. Returns all replies.
fn ask(stream: impl Read + Write, token: &str, requests: &[serde_json::Value]) -> Vec<String> {
    let mut stream = BufReader::new(stream);
    let greeting = format!("PRSERVICE 1.0\nneeds-headers: false\nAuthorization: {token}\n\n");
    let lines = requests.iter().map(|request| format!("{request}\n"));
    let text = greeting + &lines.collect::<String>();
    stream.get_mut().write_all(text.as_bytes()).unwrap();
    let mut replies = Vec::new();
    for _ in requests {
        let mut reply = String::new();
        if stream.read_line(&mut reply).is_ok_and(|bytes| bytes > 0) {
            replies.push(reply.trim_end().to_owned());
        }
    }
    replies
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

#[test]
fn a_token_in_the_greeting_allows_writing_and_an_unknown_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &READERS);
    let get = json!({"get-pr": tuple("v", "a")});
    let readonly = json!({"is-readonly": {}});
    assert!(server.client().get("v", "a").is_err());
    let replies = ask(
        connect(&server),
        "Bearer secret",
        &[get.clone(), readonly.clone()],
    );
    assert_eq!(replies, [r#"{"value": "0"}"#, r#"{"readonly": false}"#]);
    let replies = ask(connect(&server), "Bearer other", &[get.clone(), readonly]);
    assert_eq!(replies.len(), 1);
    assert!(replies[0].contains("invoke-error"), "{replies:?}");
    assert!(replies[0].contains("the token is unknown"), "{replies:?}");
    let replies = ask(connect(&server), "Basic x", &[json!({"is-readonly": {}})]);
    assert_eq!(replies, [r#"{"readonly": true}"#]);
}

#[test]
fn a_client_without_a_token_is_served_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &[]);
    assert_eq!(server.client().get("v", "a").unwrap(), "0");
}

#[test]
fn in_lockdown_a_token_allows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &["--lockdown"]);
    let replies = ask(
        connect(&server),
        "Bearer secret",
        &[json!({"is-readonly": {}})],
    );
    assert_eq!(replies, [r#"{"readonly": true}"#]);
}

#[test]
fn a_token_in_a_websocket_upgrade_allows_writing() {
    use tungstenite::client::IntoClientRequest;
    use tungstenite::{Message, client};
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &READERS);
    let open = |token: &str| {
        let url = format!("ws://{}/", server.address);
        let mut request = url.into_client_request().unwrap();
        let header = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("Authorization", header);
        client(request, connect(&server)).map_err(drop)
    };
    assert!(open("other").is_err());
    let (mut socket, _) = open("secret").unwrap();
    let get = json!({"get-pr": tuple("v", "a")}).to_string();
    for line in ["PRSERVICE 1.0", "needs-headers: false", "", &get] {
        socket.send(Message::text(line)).unwrap();
    }
    assert_eq!(socket.read().unwrap(), Message::text(r#"{"value": "0"}"#));
}

#[cfg(feature = "xmlrpc")]
#[test]
fn a_token_of_an_xmlrpc_call_allows_writing() {
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path(), &READERS);
    let call = |token: &str| {
        let param = "<param><value><string>v</string></value></param>".repeat(3);
        let body = format!(
            "<?xml version='1.0'?><methodCall><methodName>getPR</methodName>\
             <params>{param}</params></methodCall>"
        );
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Type: text/xml\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        String::from_utf8(server.exchange(request.as_bytes())).unwrap()
    };
    assert!(
        call("other").starts_with("HTTP/1.1 401"),
        "{}",
        call("other")
    );
    assert!(
        call("secret").contains("<int>0</int>"),
        "{}",
        call("secret")
    );
}

/// Starts a server that also listens on a Unix socket. Returns its path.
fn start_with_socket(dir: &Path, arguments: &[&str]) -> (Server, String) {
    let path = dir.join("prserv.sock");
    let address = format!("unix://{}", path.display());
    let arguments = [&["--listen", &address], arguments].concat();
    (start(dir, &arguments), address)
}

#[test]
fn the_unix_socket_may_have_a_long_path_and_is_removed_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let (mut server, _) = start_with_socket(&deep, &[]);
    assert!(deep.join("prserv.sock").exists());
    server.signal(nix::sys::signal::Signal::SIGTERM);
    server.wait();
    assert!(!deep.join("prserv.sock").exists());
}

fn run(arguments: &[&str]) -> Output {
    prserv().args(arguments).output().unwrap()
}

#[test]
fn a_client_of_the_unix_socket_may_write_and_is_known_as_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.jsonl");
    let more = [&READERS[..], &["--audit-log", log.to_str().unwrap()]].concat();
    let (server, address) = start_with_socket(dir.path(), &more);
    let stream = UnixStream::connect(dir.path().join("prserv.sock")).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let replies = ask(stream, "", &[json!({"get-pr": tuple("v", "a")})]);
    assert_eq!(replies, [r#"{"value": "0"}"#]);
    let user = format!(r#""client":"user {}""#, nix::unistd::geteuid());
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains(&user), "{text}");
    let listed = run(&["list", "--server", &address]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("v        all      0"));
    let forgotten = run(&[
        "forget",
        "v",
        "all",
        "--server",
        &address,
        "--greatest",
        "0",
    ]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert!(server.client().rows().is_empty());
}

#[test]
fn a_parent_may_have_a_unix_socket() {
    let (dir, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (parent, address) = start_with_socket(dir.path(), &[]);
    let arguments = ["--upstream", &address];
    let child = Server::start_with(below.path().join("child.sqlite3"), &arguments);
    parent.client().get("v", "p").unwrap();
    assert_eq!(child.client().get("v", "a").unwrap(), "0.0");
}

#[test]
fn a_token_file_with_a_malformed_line_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    sys::file::replace(&dir.path().join("tokens"), b"one\na b c\n").unwrap();
    let tokens = dir.path().join("tokens");
    let db = dir.path().join("prserv.sqlite3");
    let refused = run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--db",
        db.to_str().unwrap(),
        "--token-file",
        tokens.to_str().unwrap(),
    ]);
    assert_eq!(refused.status.code(), Some(1));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(
        error.contains("line 2 has more than a name and a token"),
        "{error}"
    );
}
