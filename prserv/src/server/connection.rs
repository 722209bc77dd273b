//! One connection: detects its protocol and carries the JSON stream.

use std::error::Error;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::http;
use super::json_session::{Framing, JsonSession, Next, SessionError};
use super::sniff::{Protocol, sniff};
use crate::session::AuthorizedService;
use crate::wire::ProtocolError;
use crate::wire::decoder::MessageDecoder;

/// The free space of the buffer for each read, enough for a typical request.
const READ_BYTES: usize = 1024;

/// The capacity for replies that an idle connection keeps.
const IDLE_OUTPUT_BYTES: usize = 4 * 1024;

/// The error that ends a connection.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
    #[error("the transport failed")]
    Io(#[from] io::Error),
}

/// Serves a connection until its peer closes it, an error occurs or `stop` becomes true.
pub(super) async fn serve(
    service: AuthorizedService,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    stop: watch::Receiver<bool>,
) {
    let peer = service.peer.name.clone();
    if let Err(error) = try_serve(service, stream, stop).await {
        let is_io = matches!(error, ConnectionError::Io(_));
        let error = &error as &dyn Error;
        if is_io {
            tracing::debug!(error, %peer, "a connection was lost");
        } else {
            tracing::warn!(error, %peer, "closing a connection");
        }
    }
}

async fn try_serve(
    service: AuthorizedService,
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    let mut decoder = MessageDecoder::default();
    let protocol = loop {
        if let ReadOutcome::End = read(&mut stream, decoder.buffer(), &mut stop).await? {
            return Ok(decoder.finish()?);
        }
        if let Some(protocol) = sniff(decoder.buffer()) {
            break protocol;
        }
    };
    match protocol {
        Protocol::Http => {
            let first_bytes = std::mem::take(decoder.buffer());
            Ok(http::serve(service, first_bytes, stream, stop).await?)
        }
        Protocol::Json => {
            let session = JsonSession::new(service, decoder, Framing::Chunked);
            serve_json(session, stream, stop).await
        }
    }
}

/// Serves the JSON stream, whose first bytes are in the session's decoder.
async fn serve_json(
    mut session: JsonSession,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError> {
    loop {
        let handled = session.handle().await;
        if !session.output.is_empty() {
            stream.write_all(&session.output).await?;
            session.output.clear();
            session.output.shrink_to(IDLE_OUTPUT_BYTES);
        }
        session.unsent_export = None;
        match handled? {
            Next::Continue => continue,
            Next::Close => return Ok(stream.shutdown().await?),
            Next::Read => {}
        }
        if let ReadOutcome::End = read(&mut stream, session.decoder.buffer(), &mut stop).await? {
            return Ok(session.decoder.finish()?);
        }
    }
}

/// The outcome of a read.
enum ReadOutcome {
    /// Bytes were appended to the buffer.
    Bytes,
    /// The peer closed its side, or the server stops.
    End,
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<ReadOutcome> {
    buffer.reserve(READ_BYTES);
    let bytes = tokio::select! {
        biased;
        read = stream.read_buf(buffer) => read?,
        _ = stop.wait_for(|stop| *stop) => 0,
    };
    Ok(if bytes == 0 {
        ReadOutcome::End
    } else {
        ReadOutcome::Bytes
    })
}
