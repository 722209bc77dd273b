//! One connection of a client, through a proxy if need be.

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
use crate::wire::inbox::{Event, Inbox};
use crate::wire::reply;

const GREETING: &[u8] = b"PRSERVICE 1.0\nneeds-headers: false\n\n";

/// A proxy's reply is not longer.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// A greeted connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    inbox: Inbox,
}

impl Connection {
    /// Connects, through the target's proxy if it has one. The greeting goes with the first
    /// request.
    pub(super) async fn open(target: &Target, patience: Duration) -> Result<Self, ClientError> {
        let stream = in_time(patience, connect(target))
            .await
            .map_err(|error| match error {
                Failure::Io(source) => failed(target, source),
                Failure::Refused(status) => ClientError::Proxy(status),
            })?;
        let mut connection = Self {
            stream,
            inbox: Inbox::of_client(),
        };
        let greeted = async {
            connection
                .stream
                .write_all(GREETING)
                .await
                .map_err(Failure::Io)
        };
        match in_time(patience, greeted).await {
            Ok(()) => Ok(connection),
            Err(Failure::Io(source)) => Err(failed(target, source)),
            Err(Failure::Refused(status)) => Err(ClientError::Proxy(status)),
        }
    }

    /// Sends all, then reads as many replies, each within the time.
    pub(super) async fn exchange(
        &mut self,
        requests: &[impl Serialize],
        target: &Target,
        patience: Duration,
    ) -> Result<Vec<Json>, ClientError> {
        let mut bytes = Vec::new();
        for request in requests {
            reply::write(&mut bytes, request);
        }
        let sent = timeout(patience, self.stream.write_all(&bytes)).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| failed(target, source))?;
        let mut replies = Vec::with_capacity(requests.len());
        while replies.len() < requests.len() {
            if let Some(event) = self.inbox.next_event()? {
                if let Event::Message(message) = event {
                    replies.push(message);
                }
                continue;
            }
            let read = timeout(patience, self.stream.read_buf(self.inbox.buffer())).await;
            match read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(0) => return Err(failed(target, io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(source) => return Err(failed(target, source)),
            }
        }
        Ok(replies)
    }
}

fn failed(target: &Target, source: io::Error) -> ClientError {
    ClientError::Io {
        target: target.to_string(),
        source,
    }
}

/// Why there is no connection.
enum Failure {
    Io(io::Error),
    Refused(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(patience, work)
        .await
        .unwrap_or_else(|_| Err(Failure::Io(io::ErrorKind::TimedOut.into())))
}

async fn connect(target: &Target) -> Result<TcpStream, Failure> {
    let stream = match &target.proxy {
        None => TcpStream::connect((target.host.as_str(), target.port)).await?,
        Some(proxy) => through(proxy, target).await?,
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Has a proxy connect us.
async fn through(proxy: &Proxy, target: &Target) -> Result<TcpStream, Failure> {
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
            return Err(Failure::Refused("its reply is too long".into()));
        }
        head.push(stream.read_u8().await?); // not a byte more: what follows is the server's
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some(code) if code.starts_with('2') => Ok(stream),
        _ => Err(Failure::Refused(status.to_owned())),
    }
}
