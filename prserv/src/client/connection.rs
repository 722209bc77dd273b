//! One connection of a client, optionally through a proxy.

use std::fmt;
use std::io;
use std::time::Duration;

use linerpc::connect::{self, ConnectError};
use serde::Serialize;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ClientError;
use super::target::Target;
use crate::wire::decoder::{Event, MessageDecoder};
use crate::wire::{GREETING, ProtocolError, REPLY_BYTES_MAX, reply};

/// A connection to a TCP port or a Unix socket.
type Stream = Box<dyn Transport>;

/// A stream of bytes in both directions.
trait Transport: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Transport for T {}

/// A connection on which the greeting was sent.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    decoder: MessageDecoder,
}

impl Connection {
    /// Connects, through the target's proxy if it has one, and sends the greeting with the token.
    pub(super) async fn open(
        target: &Target,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Self, ClientError> {
        let opened = async {
            let mut stream = with_timeout(limit, connect(target)).await?;
            let greeting = greeting(token);
            let greeted = async { Ok(stream.write_all(greeting.as_bytes()).await?) };
            with_timeout(limit, greeted).await?;
            Ok(stream)
        };
        let stream = opened.await.map_err(|error| match error {
            ConnectError::Io(source) => io_error(target, source),
            ConnectError::Proxy(status) => ClientError::Proxy(status),
        })?;
        Ok(Self {
            stream,
            decoder: MessageDecoder::for_replies(REPLY_BYTES_MAX),
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
            if let Some(event) = self.decoder.next_event().map_err(ProtocolError::from)? {
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

async fn with_timeout<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Io(io::ErrorKind::TimedOut.into())))
}

/// Returns the greeting. BitBake's server ignores a token.
fn greeting(token: Option<&str>) -> String {
    let headers = token.map_or_else(String::new, |token| {
        format!("authorization: Bearer {token}\n")
    });
    format!("{GREETING}\nneeds-headers: false\n{headers}\n")
}

async fn connect(target: &Target) -> Result<Stream, ConnectError> {
    let stream: Stream = match target {
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Target::Tcp(target) => Box::new(connect::connect(target).await?),
    };
    Ok(stream)
}
