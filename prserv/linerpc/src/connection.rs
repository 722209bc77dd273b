//! One connection: detects its protocol and carries the line-based stream.

use std::error::Error;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::framing::{Framing, FramingError};
use crate::http;
use crate::session::{Endpoint, Next, Session};
use crate::sniff::{Protocol, sniff};

/// The free space of the buffer for a read, enough for a typical request.
const READ_BYTES: usize = 1024;

/// The free space for a peer that sends many requests at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// The error that ends a connection.
#[derive(Debug, thiserror::Error)]
enum ConnectionError<E> {
    #[error(transparent)]
    Session(E),
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
    #[error("the transport failed")]
    Io(#[from] io::Error),
}

/// Serves a connection until its peer closes it, an error occurs or `stop` becomes true.
pub async fn serve<E: Endpoint>(
    endpoint: E,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    stop: watch::Receiver<bool>,
) {
    let peer = endpoint.peer_name().to_owned();
    if let Err(error) = try_serve(endpoint, stream, stop).await {
        let is_io = matches!(error, ConnectionError::Io(_));
        let error = &error as &dyn Error;
        if is_io {
            tracing::debug!(error, %peer, "a connection was lost");
        } else {
            tracing::warn!(error, %peer, "closing a connection");
        }
    }
}

async fn try_serve<E: Endpoint>(
    endpoint: E,
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConnectionError<<E::Session as Session>::Error>> {
    let mut session = endpoint.session(Framing::Chunked);
    let decoder = &mut session.buffers().decoder;
    let protocol = loop {
        let read = read(&mut stream, decoder.buffer(), READ_BYTES, &mut stop).await?;
        if let ReadOutcome::End = read {
            return Ok(decoder.finish()?);
        }
        if let Some(protocol) = sniff(decoder.buffer()) {
            break protocol;
        }
    };
    match protocol {
        Protocol::Http => {
            let first_bytes = std::mem::take(decoder.buffer());
            let router = endpoint.router(stop.clone());
            // In a box, because the state of HTTP is large and most connections have none.
            Ok(Box::pin(http::serve(router, first_bytes, stream, stop)).await?)
        }
        Protocol::Lines => serve_lines(&mut session, &mut stream, &mut stop).await,
    }
}

/// Serves the line-based stream, whose first bytes are in the session's decoder.
async fn serve_lines<S: Session>(
    session: &mut S,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stop: &mut watch::Receiver<bool>,
) -> Result<(), ConnectionError<S::Error>> {
    let mut space = READ_BYTES;
    loop {
        let handled = session.handle().await;
        let buffers = session.buffers();
        if !buffers.output.is_empty() {
            stream.write_all(&buffers.output).await?;
            buffers.clear_output();
        }
        session.output_sent();
        match handled.map_err(ConnectionError::Session)? {
            Next::Continue => continue,
            Next::Close => return Ok(stream.shutdown().await?),
            Next::Read => {}
        }
        let decoder = &mut session.buffers().decoder;
        match read(stream, decoder.buffer(), space, stop).await? {
            ReadOutcome::End => return Ok(decoder.finish()?),
            ReadOutcome::Bytes(bytes) if bytes >= space => space = READ_BYTES_MAX.min(space * 2),
            ReadOutcome::Bytes(_) => {}
        }
    }
}

/// The outcome of a read.
enum ReadOutcome {
    /// So many bytes were appended to the buffer.
    Bytes(usize),
    /// The peer closed its side, or the server stops.
    End,
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    space: usize,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<ReadOutcome> {
    buffer.reserve(space);
    let bytes = tokio::select! {
        biased;
        read = stream.read_buf(buffer) => read?,
        _ = stop.wait_for(|stop| *stop) => 0,
    };
    Ok(if bytes == 0 {
        ReadOutcome::End
    } else {
        ReadOutcome::Bytes(bytes)
    })
}
