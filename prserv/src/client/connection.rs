//! One connection of a client, optionally through a proxy.

use std::io;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ClientError;
use super::target::{Proxy, Target};
use crate::wire::decoder::{Event, MessageDecoder};
use crate::wire::reply;

const GREETING: &[u8] = b"PRSERVICE 1.0\nneeds-headers: false\n\n";

/// The maximum length of a proxy's response head.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// A connection on which the greeting was sent.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    decoder: MessageDecoder,
}

impl Connection {
    /// Connects, through the target's proxy if it has one, and sends the greeting.
    pub(super) async fn open(target: &Target, limit: Duration) -> Result<Self, ClientError> {
        let opened = async {
            let mut stream = with_timeout(limit, connect(target)).await?;
            let greeted = async { Ok(stream.write_all(GREETING).await?) };
            with_timeout(limit, greeted).await?;
            Ok(stream)
        };
        let stream = opened.await.map_err(|error| match error {
            ConnectError::Io(source) => io_error(target, source),
            ConnectError::Proxy(status) => ClientError::Proxy(status),
        })?;
        Ok(Self {
            stream,
            decoder: MessageDecoder::for_replies(),
        })
    }

    /// Sends all requests, then reads as many replies, each within the time limit.
    pub(super) async fn exchange(
        &mut self,
        requests: &[impl Serialize],
        target: &Target,
        limit: Duration,
    ) -> Result<Vec<Json>, ClientError> {
        let mut bytes = Vec::new();
        for request in requests {
            reply::write(&mut bytes, request);
        }
        let timed_out = |_| Err(io::ErrorKind::TimedOut.into());
        timeout(limit, self.stream.write_all(&bytes))
            .await
            .unwrap_or_else(timed_out)
            .map_err(|source| io_error(target, source))?;
        let mut replies = Vec::with_capacity(requests.len());
        while replies.len() < requests.len() {
            if let Some(event) = self.decoder.next_event()? {
                if let Event::Message(message) = event {
                    if let Some(error) = super::refusal(&message) {
                        return Err(error);
                    }
                    replies.push(message);
                }
                continue;
            }
            let read = timeout(limit, self.stream.read_buf(self.decoder.buffer())).await;
            match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(0) => return Err(io_error(target, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(source) => return Err(io_error(target, source)),
            }
        }
        Ok(replies)
    }
}

fn io_error(target: &Target, source: io::Error) -> ClientError {
    ClientError::Io {
        target: target.to_string(),
        source,
    }
}

/// The error of a connection attempt.
enum ConnectError {
    Io(io::Error),
    /// The proxy's status line or another reason.
    Proxy(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Io(io::ErrorKind::TimedOut.into())))
}

async fn connect(target: &Target) -> Result<TcpStream, ConnectError> {
    let stream = match &target.proxy {
        None => TcpStream::connect((target.host.as_str(), target.port)).await?,
        Some(proxy) => connect_through(proxy, target).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens a tunnel through an HTTP proxy.
async fn connect_through(proxy: &Proxy, target: &Target) -> Result<TcpStream, ConnectError> {
    let mut stream = TcpStream::connect((proxy.host.as_str(), proxy.port)).await?;
    let authorization = proxy
        .credentials
        .as_ref()
        .map_or_else(String::new, |credentials| {
            format!(
                "Proxy-Authorization: Basic {}\r\n",
                BASE64_STANDARD.encode(credentials)
            )
        });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > PROXY_HEAD_BYTES_MAX {
            return Err(ConnectError::Proxy("its response is too long".into()));
        }
        // Byte by byte, because the bytes after the head come from the server.
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some(code) if code.starts_with('2') => Ok(stream),
        _ => Err(ConnectError::Proxy(status.to_owned())),
    }
}
