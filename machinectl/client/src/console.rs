//! HTTP connections that are upgraded: to the serial line of a guest, or to the streams of a command.

use std::error::Error;
use std::io;
use std::os::unix::net;
use std::str::FromStr;
use std::thread;

use config::builds::CONSOLE_PROTOCOL;
use config::{BuildId, MachineName, NameError};
use hyper::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use sys::command::Running;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::connect::Stream;
use crate::http::{self, Body, Http};
use crate::{ANSWER_LIMIT, Client, ClientError, Endpoint, Result};

/// A connection to a console.
#[derive(Debug)]
pub struct Console {
    /// The connection, in blocking mode.
    pub stream: net::UnixStream,
    /// Output that arrived together with the agent's answer; it precedes that of the stream.
    pub received: Vec<u8>,
    /// The ssh of the connection, which ends with it.
    _relay: Option<Running>,
}

/// The guest whose console is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsoleTarget {
    /// The guest of a build.
    Build(BuildId),
    /// The auxiliary guest of a build with this number.
    Auxiliary(BuildId, u8),
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

#[cfg(test)]
impl Console {
    /// Returns a connection over this stream.
    pub(crate) fn of(stream: net::UnixStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            _relay: None,
        }
    }
}

impl Client {
    /// Connects to the console of a running guest.
    pub fn console(&self, target: &ConsoleTarget, access: Access) -> Result<Console> {
        let path = match target {
            ConsoleTarget::Build(id) => format!("builds/{id}/console"),
            ConsoleTarget::Auxiliary(id, number) => {
                format!("builds/{id}/console?auxiliary={number}")
            }
            ConsoleTarget::Machine(name) => format!("machines/{name}/console"),
        };
        let method = match access {
            Access::Read => Method::GET,
            Access::ReadWrite => Method::POST,
        };
        let body = Body::default();
        connect(&self.endpoint, method, &path, CONSOLE_PROTOCOL, body)
    }

    /// Boots a copy of the guest that is held for a build, and connects to its console.
    pub fn attach(&self, id: BuildId) -> Result<Console> {
        let (path, body) = (format!("builds/{id}/attach"), Body::default());
        connect(&self.endpoint, Method::POST, &path, CONSOLE_PROTOCOL, body)
    }
}

/// Sends a request with a JSON document, or none, on a connection of its own, which switches to the
/// protocol.
pub(crate) fn connect(
    endpoint: &Endpoint,
    method: Method,
    path: &str,
    protocol: &str,
    body: Body,
) -> Result<Console> {
    let http = Http::new(endpoint.clone())?;
    let runtime = http::runtime()?;
    let (stream, received) = runtime.block_on(async {
        let request = http
            .request(method, path)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, protocol)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(failed)?;
        upgrade(&http, request).await
    })?;
    match stream {
        Stream::Unix { io, relay } => {
            let stream = io.into_std().map_err(failed)?;
            stream.set_nonblocking(false).map_err(failed)?;
            Ok(Console {
                stream,
                received,
                _relay: relay,
            })
        }
        stream @ (Stream::Tcp(_) | Stream::Tls(_)) => Ok(Console {
            stream: bridge(runtime, stream).map_err(failed)?,
            received,
            _relay: None,
        }),
    }
}

/// Sends the request and takes the connection over after the agent has switched protocols. Returns
/// it with what has arrived behind the answer.
async fn upgrade(http: &Http, request: Request<Body>) -> Result<(Stream, Vec<u8>)> {
    let response = timeout(ANSWER_LIMIT, http.send(request))
        .await
        .map_err(failed)??;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(failed("the agent did not switch protocols"));
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(failed)?;
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| failed("the connection is of another kind"))?;
    Ok((parts.io.into_inner(), parts.read_buf.into()))
}

/// Returns the one end of a socket whose other end a thread connects with a stream, until both
/// directions have ended.
fn bridge(runtime: Runtime, mut stream: Stream) -> io::Result<net::UnixStream> {
    let (own, other) = net::UnixStream::pair()?;
    other.set_nonblocking(true)?;
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                if let Ok(mut other) = UnixStream::from_std(other) {
                    // The reader of the socket sees the end, whatever its reason.
                    let _ = copy_bidirectional(&mut stream, &mut other).await;
                }
            });
        })?;
    Ok(own)
}

pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> ClientError {
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
        let (path, body) = ("builds/7/console", Body::default());
        let endpoint = Endpoint::Socket(socket);
        let console = connect(&endpoint, Method::POST, path, CONSOLE_PROTOCOL, body);
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
                matches!(
                    console,
                    Err(ClientError::Console(_) | ClientError::Answer(_))
                ),
                "{answer:?}"
            );
        }
    }
}
