//! Consoles: HTTP connections that are upgraded to the serial line of a guest.

use std::error::Error;
use std::os::unix::net;
use std::path::Path;
use std::str::FromStr;

use config::builds::CONSOLE_PROTOCOL;
use config::{BuildId, MachineName, NameError};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::{ANSWER_LIMIT, Client, ClientError, Result};

/// The longest refusal that is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A connection to a console.
#[derive(Debug)]
pub struct Console {
    /// The connection, in blocking mode.
    pub stream: net::UnixStream,
    /// Output that arrived together with the agent's answer; it precedes that of the stream.
    pub received: Vec<u8>,
}

/// The guest whose console is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleTarget {
    /// The guest of a build.
    Build(BuildId),
    /// The only guest of a machine.
    Machine(MachineName),
}

impl FromStr for ConsoleTarget {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(id) => Ok(Self::Build(id)),
            Err(_) => text.parse().map(Self::Machine),
        }
    }
}

/// The rights of a connection to a console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Output only; any number of connections.
    Read,
    /// Output and input; one connection at a time.
    ReadWrite,
}

impl Client {
    /// Connects to the console of a running guest.
    pub fn console(&self, target: &ConsoleTarget, access: Access) -> Result<Console> {
        let path = match target {
            ConsoleTarget::Build(id) => format!("builds/{id}/console"),
            ConsoleTarget::Machine(name) => format!("machines/{name}/console"),
        };
        let method = match access {
            Access::Read => Method::GET,
            Access::ReadWrite => Method::POST,
        };
        connect(&self.socket, method, &path)
    }

    /// Boots a copy of the guest that is held for a build, and connects to its console.
    pub fn attach(&self, id: BuildId) -> Result<Console> {
        connect(&self.socket, Method::POST, &format!("builds/{id}/attach"))
    }
}

fn connect(socket: &Path, method: Method, path: &str) -> Result<Console> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    runtime.block_on(upgrade(socket, method, path))
}

/// Sends the request and takes the connection over after the agent has switched protocols.
async fn upgrade(socket: &Path, method: Method, path: &str) -> Result<Console> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::NoAgent {
            socket: socket.to_owned(),
            source: source.into(),
        })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .method(method)
        .uri(format!("/api/v1/{path}"))
        .header(HOST, "agent")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, CONSOLE_PROTOCOL)
        .body(Empty::<Bytes>::new())
        .map_err(failed)?;
    let response = timeout(ANSWER_LIMIT, sender.send_request(request))
        .await
        .map_err(failed)?
        .map_err(failed)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    let parts = upgraded
        .downcast::<TokioIo<UnixStream>>()
        .map_err(|_| failed("the connection is not a unix socket"))?;
    let stream = parts.io.into_inner().into_std().map_err(failed)?;
    stream.set_nonblocking(false).map_err(failed)?;
    Ok(Console {
        stream,
        received: parts.read_buf.into(),
    })
}

async fn refusal(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX);
    match timeout(ANSWER_LIMIT, body.collect()).await {
        Ok(Ok(body)) => {
            let text = body.to_bytes();
            ClientError::refused(status, &String::from_utf8_lossy(&text))
        }
        Ok(Err(error)) => ClientError::Console(error),
        Err(error) => failed(error),
    }
}

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
    ClientError::Console(error.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// Connects to a server that reads a request and answers with `answer`.
    fn connect_to(answer: &'static str) -> (Result<Console>, String) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let console = connect(&socket, Method::POST, "builds/7/console");
        (console, server.join().unwrap())
    }

    #[test]
    fn output_that_follows_the_upgrade_is_kept() {
        let (console, request) = connect_to(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nlogin: ",
        );
        assert!(request.starts_with("POST /api/v1/builds/7/console HTTP/1.1\r\n"));
        let mut console = console.unwrap();
        let mut rest = Vec::new();
        console.stream.read_to_end(&mut rest).unwrap();
        assert_eq!([console.received, rest].concat(), b"login: ");
    }

    #[test]
    fn a_refusal_has_its_status_and_reason() {
        let (console, _) = connect_to("HTTP/1.1 409 Conflict\r\ncontent-length: 6\r\n\r\nin use");
        match console {
            Err(ClientError::Refused {
                status: 409,
                detail,
            }) => assert_eq!(detail, "in use"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn malformed_answers_are_errors() {
        for answer in ["", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1 200 OK\r\n", "\r\n\r\n"] {
            let (console, _) = connect_to(answer);
            assert!(
                matches!(console, Err(ClientError::Console(_))),
                "{answer:?}"
            );
        }
    }
}
