//! A client of the protocol: one connection, on which queries are pipelined.

mod address;
mod transport;

use std::fmt;
use std::time::Duration;

use linerpc::FramingError;
use linerpc::connect::ConnectError;
use serde_json::{Value as Json, json};
use tokio::time::timeout;

pub use address::{Address, AddressError};
use transport::Transport;

use crate::protocol::{OK, STREAM_END, StreamMode};

/// The number of lines that are sent before their answers are read.
const PIPELINE: usize = 128;

/// The error of a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be opened or was lost.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// The proxy refused to connect.
    #[error("the proxy refused to connect: {0:?}")]
    Proxy(String),
    /// The websocket could not be opened or was lost.
    #[error("the websocket failed")]
    WebSocket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The server's certificate authorities cannot be read, or the host has no valid name.
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    /// The reply violates the framing.
    #[error("the server's reply is malformed")]
    Framing(#[from] FramingError),
    /// The reply does not answer the request.
    #[error("unexpected reply from the server: {0:?}")]
    Unexpected(String),
    /// The server refused the request with this message.
    #[error("the server refused the request: {0:?}")]
    Refused(String),
}

impl From<ConnectError> for ClientError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Io(error),
            ConnectError::Proxy(status) => Self::Proxy(status),
        }
    }
}

/// A connected client. After an error it must not be used.
pub struct Client {
    transport: Transport,
    mode: Option<StreamMode>,
    limit: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Client")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects and sends the greeting. Connecting and each reply may take `limit`.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn connect(address: &Address, limit: Duration) -> Result<Self, ClientError> {
        Ok(Self {
            transport: within(limit, Transport::connect(address)).await?,
            mode: None,
            limit,
        })
    }

    /// Sends one request and returns its reply.
    ///
    /// # Errors
    /// The connection failed, or the server refused the request.
    pub async fn request(&mut self, request: &Json) -> Result<Json, ClientError> {
        self.set_mode(None).await?;
        self.exchange(request).await
    }

    /// Sends lines in a stream and returns the answers in the same order.
    ///
    /// # Errors
    /// The connection failed, or the server refused the stream.
    pub async fn stream(
        &mut self,
        mode: StreamMode,
        lines: &[String],
    ) -> Result<Vec<String>, ClientError> {
        self.set_mode(Some(mode)).await?;
        let mut answers = Vec::with_capacity(lines.len());
        for lines in lines.chunks(PIPELINE) {
            within(self.limit, self.transport.send_lines(lines)).await?;
            for _ in lines {
                answers.push(within(self.limit, self.transport.receive_line()).await?);
            }
        }
        Ok(answers)
    }

    async fn set_mode(&mut self, mode: Option<StreamMode>) -> Result<(), ClientError> {
        if self.mode == mode {
            return Ok(());
        }
        if self.mode.take().is_some() {
            let end = [STREAM_END.to_owned()];
            within(self.limit, self.transport.send_lines(&end)).await?;
            let reply = within(self.limit, self.transport.receive_line()).await?;
            if reply != OK {
                return Err(unexpected(&reply));
            }
        }
        if let Some(mode) = mode {
            let reply = self.exchange(&json!({ mode.name(): null })).await?;
            if reply != OK {
                return Err(unexpected(&reply.to_string()));
            }
        }
        self.mode = mode;
        Ok(())
    }

    async fn exchange(&mut self, request: &Json) -> Result<Json, ClientError> {
        within(self.limit, self.transport.send_message(request)).await?;
        let reply = within(self.limit, self.transport.receive_message()).await?;
        let refusal = reply
            .get("invoke-error")
            .and_then(|error| error.get("message"));
        match refusal {
            Some(message) => Err(ClientError::Refused(truncated(&message.to_string()))),
            None => Ok(reply),
        }
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

fn unexpected(reply: &str) -> ClientError {
    ClientError::Unexpected(truncated(reply))
}

/// Returns the beginning of a text of the server.
fn truncated(text: &str) -> String {
    text.chars().take(200).collect()
}
