//! Opening a connection to a server, directly or through an HTTP proxy.

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::target::{Proxy, Target};

/// The maximum length of a proxy's response head.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// The error of a connection attempt.
#[derive(Debug)]
pub enum ConnectError {
    /// The server or the proxy cannot be reached.
    Io(io::Error),
    /// The proxy's status line or another reason.
    Proxy(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Connects to a server, through the target's proxy if it has one.
///
/// # Errors
/// The connection cannot be opened.
pub async fn connect(target: &Target) -> Result<TcpStream, ConnectError> {
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
