//! The transports of a client: a stream of lines, or a websocket with a line in each frame.

use std::io;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use linerpc::connect::connect;
use linerpc::decoder::{Event, MessageDecoder};
use linerpc::encoder;
use serde_json::Value as Json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{Address, ClientError, unexpected};
use crate::protocol::{GREETING, MESSAGE_BYTES_MAX};

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection on which the greeting was sent.
pub(super) enum Transport {
    Lines(Box<dyn Stream>, MessageDecoder),
    WebSocket(Box<WebSocketStream<Box<dyn Stream>>>),
}

impl Transport {
    /// Connects and sends the greeting.
    pub(super) async fn connect(address: &Address) -> Result<Self, ClientError> {
        let stream: Box<dyn Stream> = match address {
            Address::Tcp(target) => Box::new(connect(target).await?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Address::WebSocket {
                url,
                target,
                is_encrypted,
            } => {
                let stream = connect(target).await?;
                let stream: Box<dyn Stream> = if *is_encrypted {
                    Box::new(encrypt(stream, &target.host).await?)
                } else {
                    Box::new(stream)
                };
                let (socket, _) = client_async(url, stream).await.map_err(Box::new)?;
                let mut transport = Self::WebSocket(Box::new(socket));
                let greeting = GREETING.to_lines();
                let lines: Vec<String> = greeting.lines().map(str::to_owned).collect();
                transport.send_lines(&lines).await?;
                return Ok(transport);
            }
        };
        let mut transport = Self::Lines(stream, MessageDecoder::for_replies(MESSAGE_BYTES_MAX));
        transport.send_bytes(GREETING.to_lines().as_bytes()).await?;
        Ok(transport)
    }

    /// Sends a message.
    pub(super) async fn send_message(&mut self, message: &Json) -> Result<(), ClientError> {
        match self {
            Self::Lines(..) => {
                let mut bytes = Vec::new();
                encoder::write(&mut bytes, message);
                self.send_bytes(&bytes).await
            }
            Self::WebSocket(_) => self.send_lines(&[encoder::text(message)]).await,
        }
    }

    /// Sends lines.
    pub(super) async fn send_lines(&mut self, lines: &[String]) -> Result<(), ClientError> {
        match self {
            Self::Lines(..) => {
                let mut text = lines.join("\n");
                text.push('\n');
                self.send_bytes(text.as_bytes()).await
            }
            Self::WebSocket(socket) => {
                for line in lines {
                    socket
                        .feed(Message::text(line.clone()))
                        .await
                        .map_err(Box::new)?;
                }
                Ok(socket.flush().await.map_err(Box::new)?)
            }
        }
    }

    /// Receives a message.
    pub(super) async fn receive_message(&mut self) -> Result<Json, ClientError> {
        match self {
            Self::Lines(stream, decoder) => loop {
                if let Some(Event::Message(message)) = decoder.next_event()? {
                    return Ok(message);
                }
                read(stream, decoder).await?;
            },
            Self::WebSocket(_) => {
                let line = self.receive_line().await?;
                serde_json::from_str(&line).map_err(|_| unexpected(&line))
            }
        }
    }

    /// Receives a line.
    pub(super) async fn receive_line(&mut self) -> Result<String, ClientError> {
        match self {
            Self::Lines(stream, decoder) => loop {
                if let Some(line) = decoder.next_text()? {
                    return Ok(line.to_owned());
                }
                read(stream, decoder).await?;
            },
            Self::WebSocket(socket) => loop {
                let closed = || Err(WebSocketError::ConnectionClosed);
                match socket
                    .next()
                    .await
                    .unwrap_or_else(closed)
                    .map_err(Box::new)?
                {
                    Message::Text(text) => return Ok(text.as_str().to_owned()),
                    Message::Ping(_) | Message::Pong(_) => {}
                    _ => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                }
            },
        }
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        if let Self::Lines(stream, _) = self {
            stream.write_all(bytes).await?;
        }
        Ok(())
    }
}

async fn read(stream: &mut Box<dyn Stream>, decoder: &mut MessageDecoder) -> io::Result<()> {
    match stream.read_buf(decoder.buffer()).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Encrypts a connection, and checks the server's certificate against the authorities of this host.
async fn encrypt(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, ClientError> {
    let tls = |error: &dyn std::fmt::Display| ClientError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|error| tls(&error))?;
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?)
}
