//! One connection on a socket: which protocol it speaks, and the JSON stream itself.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::dialogue::{self, Dialogue, Framing, Next};
use super::http;
use super::sniff::{Protocol, sniff};
use crate::desk::Desk;
use crate::wire::Fault;
use crate::wire::inbox::Inbox;

/// Room for a usual request.
const READ_BYTES: usize = 1024;

/// Room for replies that a connection keeps while it is idle.
const OUTBOX_BYTES: usize = 4 * 1024;

/// Why a connection ended before its peer left.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Dialogue(#[from] dialogue::End),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Serves a connection until its peer leaves, does something wrong, or `stop` becomes true.
pub(super) async fn serve(
    desk: Desk,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    stop: watch::Receiver<bool>,
) {
    let peer = desk.peer.name.clone();
    match converse(desk, stream, stop).await {
        Ok(()) => {}
        Err(End::Io(error)) => tracing::debug!(%peer, %error, "a connection broke"),
        Err(error) => tracing::warn!(%peer, %error, "closing a connection"),
    }
}

async fn converse(
    desk: Desk,
    mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut stop: watch::Receiver<bool>,
) -> Result<(), End> {
    let mut inbox = Inbox::default();
    let protocol = loop {
        if let Read::End = read(&mut stream, inbox.buffer(), &mut stop).await? {
            return Ok(inbox.finish()?);
        }
        if let Some(protocol) = sniff(inbox.buffer()) {
            break protocol;
        }
    };
    match protocol {
        Protocol::Http => {
            let first = std::mem::take(inbox.buffer());
            Ok(http::serve(desk, first, stream, stop).await?)
        }
        Protocol::Stream => {
            let dialogue = Dialogue::new(desk, inbox, Framing::Pieces);
            stream_on(dialogue, stream, stop).await
        }
    }
}

/// The JSON stream, from a greeting that has begun.
async fn stream_on(
    mut dialogue: Dialogue,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut stop: watch::Receiver<bool>,
) -> Result<(), End> {
    loop {
        let handled = dialogue.handle().await;
        if !dialogue.outbox.is_empty() {
            stream.write_all(&dialogue.outbox).await?;
            dialogue.outbox.clear();
            dialogue.outbox.shrink_to(OUTBOX_BYTES);
        }
        match handled? {
            Next::Go => continue,
            Next::Close => return Ok(stream.shutdown().await?),
            Next::Read => {}
        }
        if let Read::End = read(&mut stream, dialogue.inbox.buffer(), &mut stop).await? {
            return Ok(dialogue.inbox.finish()?);
        }
    }
}

/// What reading brought.
enum Read {
    Bytes,
    /// The peer's end, or ours.
    End,
}

async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    stop: &mut watch::Receiver<bool>,
) -> io::Result<Read> {
    buffer.reserve(READ_BYTES);
    let bytes = tokio::select! {
        biased;
        read = stream.read_buf(buffer) => read?,
        _ = stop.wait_for(|stop| *stop) => 0,
    };
    Ok(if bytes == 0 { Read::End } else { Read::Bytes })
}
