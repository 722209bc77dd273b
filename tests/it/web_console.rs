//! The console of a build over a WebSocket: who may watch, who may type, and its end.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use config::BuildId;
use serde_json::{Value, json};
use session::console::{ConsoleHandle, ConsoleInput};
use tests::api_host::ApiHost;
use tests::attacks::refused;
use tungstenite::client::IntoClientRequest;
use tungstenite::error::Error;
use tungstenite::{Message, WebSocket};

use super::openapi::SOURCE;

const PATH: &str = "/api/v1/builds/1/console/ws";

/// A host with the build 1, whose guest has a console.
struct Fixture {
    host: ApiHost,
    console: ConsoleHandle,
    guest: UnixStream,
}

impl Fixture {
    fn new() -> Self {
        let host = ApiHost::new("http.requests_per_second_max = 0\n");
        host.allow(&[("read", "r"), ("submit", "s"), ("admin", "a")]);
        let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
        put.bearer_auth("a").body("source").send().unwrap();
        let body = json!({"machine": "linux", "sources": [{"name": "a.tar", "sha256": SOURCE}]});
        let submitted = host.remote("POST", "/api/v1/builds").bearer_auth("a");
        assert_eq!(submitted.json(&body).send().unwrap().status(), 201);
        let (guest, input) = UnixStream::pair().unwrap();
        input.set_nonblocking(true).unwrap();
        let entered = host.runtime.enter();
        let input = tokio::net::UnixStream::from_std(input).unwrap();
        let input = input.into_split().1;
        let consoles = &host.host.guests.consoles;
        let machine = "linux".parse().unwrap();
        let console = consoles.add("1", &machine, Some(ConsoleInput::Socket(input)));
        drop(entered);
        Self {
            host,
            console,
            guest,
        }
    }

    /// Opens a console, or returns the status of the refusal.
    fn open(&self, query: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
        let url = format!("ws://{}{PATH}{query}", self.host.address);
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(self.host.address).unwrap();
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn with_token(&self, query: &str, token: &str) -> Result<Socket, u16> {
        self.open(query, &[("authorization", &format!("Bearer {token}"))])
    }

    /// Returns the cookie of a session that was opened with a token.
    fn cookie(&self, token: &str) -> String {
        let origin = format!("http://{}", self.host.address);
        let client = reqwest::blocking::Client::builder();
        let client = client
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let login = client
            .post(format!("{origin}/login"))
            .header("origin", origin);
        let form = "application/x-www-form-urlencoded";
        let login = login
            .header("content-type", form)
            .body(format!("token={token}"));
        let cookie = login.send().unwrap().headers()["set-cookie"].clone();
        cookie
            .to_str()
            .unwrap()
            .split(';')
            .next()
            .unwrap()
            .to_owned()
    }

    fn typists(&self) -> Vec<String> {
        let build = self.host.block_on(self.host.host.records.get(BuildId(1)));
        let typists = build.unwrap().unwrap().typists;
        typists.iter().map(|it| it.submitter.to_string()).collect()
    }
}

struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Reads output until a text has come.
    fn expect(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            if let Message::Binary(piece) = self.0.read().unwrap() {
                seen.extend_from_slice(&piece);
            }
        }
    }

    /// Reads until the server closes the connection.
    fn expect_end(mut self) {
        loop {
            match self.0.read() {
                Ok(Message::Close(_)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn type_text(&mut self, text: &str) {
        self.0
            .send(Message::binary(text.as_bytes().to_vec()))
            .unwrap();
    }
}

#[test]
fn readers_watch_and_one_administrator_types_and_is_recorded() {
    let mut fixture = Fixture::new();
    fixture.console.console().show(b"login: ");
    let mut reader = fixture.with_token("", "r").unwrap();
    reader.expect("login: ");
    reader.type_text("not this");
    let mut typist = fixture.with_token("?write=true", "a").unwrap();
    typist.expect("login: ");
    assert_eq!(
        fixture.with_token("?write=true", "a").err(),
        Some(409),
        "one seat"
    );
    typist.type_text("root\r");
    let mut typed = [0; 5];
    fixture.guest.read_exact(&mut typed).unwrap();
    assert_eq!(&typed, b"root\r");
    assert_eq!(fixture.typists(), ["token:admin-1"]);
    fixture.console.console().show(b"# ");
    reader.expect("# ");
    typist.expect("# ");
    // The seat is free again when its owner has gone.
    drop(typist);
    tests::wait_until("the seat is free", || {
        fixture.with_token("?write=true", "a").is_ok()
    });
    drop(fixture.console);
    reader.expect_end();
}

#[test]
fn a_console_needs_the_scope_and_a_page_of_this_server() {
    let fixture = Fixture::new();
    let own = format!("http://{}", fixture.host.address);
    assert_eq!(fixture.open("", &[]).err(), Some(401));
    assert_eq!(fixture.with_token("?write=true", "r").err(), Some(403));
    assert_eq!(fixture.with_token("?write=true", "s").err(), Some(403));
    assert_eq!(fixture.with_token("?x=1", "r").err(), Some(400));
    let cookie = fixture.cookie("a");
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let headers = [("cookie", cookie.as_str()), ("origin", origin)];
        assert_eq!(fixture.open("", &headers).err(), Some(403), "{origin}");
        refused(
            "browser -> console",
            &format!("a WebSocket of {origin}"),
            "403",
        );
    }
    assert_eq!(fixture.open("", &[("cookie", &cookie)]).err(), Some(403));
    let headers = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    assert!(fixture.open("?write=true", &headers).is_ok());
    let plain = fixture
        .host
        .remote("GET", PATH)
        .bearer_auth("r")
        .send()
        .unwrap();
    let problem: Value = plain.json().unwrap();
    assert_eq!(problem["status"], 400, "{problem}");
}

#[test]
fn a_console_ends_when_the_token_of_its_session_is_removed() {
    let fixture = Fixture::new();
    let own = format!("http://{}", fixture.host.address);
    let cookie = fixture.cookie("a");
    let headers = [("cookie", cookie.as_str()), ("origin", own.as_str())];
    let socket = fixture.open("?write=true", &headers).unwrap();
    fixture.host.allow(&[("read", "r")]);
    socket.expect_end();
    assert!(fixture.typists().is_empty());
}
