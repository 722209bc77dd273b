//! One connection: requests in, replies out, strictly in order.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::http;
use super::sniff::{Protocol, sniff};
use crate::desk::{Desk, DeskError};
use crate::wire::Fault;
use crate::wire::inbox::{Event, Inbox};
use crate::wire::reply::{self, Export, One, Pong, Readonly};
use crate::wire::request::{Import, Request};

/// Replies to pipelined requests are collected up to this size before they are sent.
const OUTBOX_BYTES: usize = 64 * 1024;

/// Room for a usual request.
const READ_BYTES: usize = 1024;

/// Why a connection ended before its peer left.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// What to do after a reply.
enum Next {
    Read,
    Close,
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
            Connection {
                desk,
                stream,
                inbox,
                outbox: Vec::new(),
            }
            .run(stop)
            .await
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

struct Connection<S> {
    desk: Desk,
    stream: S,
    inbox: Inbox,
    outbox: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), End> {
        loop {
            let handled = self.handle_all().await;
            self.flush().await?;
            if let Next::Close = handled? {
                return Ok(self.stream.shutdown().await?);
            }
            if let Read::End = read(&mut self.stream, self.inbox.buffer(), &mut stop).await? {
                return Ok(self.inbox.finish()?);
            }
        }
    }

    /// Handles what has come in, up to an incomplete message.
    async fn handle_all(&mut self) -> Result<Next, End> {
        while let Some(event) = self.inbox.next_event()? {
            match event {
                Event::Greeted {
                    needs_headers: false,
                } => {}
                Event::Greeted {
                    needs_headers: true,
                } => self.outbox.push(b'\n'),
                Event::Message(message) => {
                    if let Next::Close = self.handle(Request::parse(&message)?).await? {
                        return Ok(Next::Close);
                    }
                }
            }
            if self.outbox.len() > OUTBOX_BYTES {
                self.flush().await?;
            }
        }
        Ok(Next::Read)
    }

    async fn handle(&mut self, request: Request) -> Result<Next, End> {
        let (desk, out) = (&self.desk, &mut self.outbox);
        match request {
            Request::Ping => reply::write(out, &Pong { alive: true }),
            Request::IsReadonly => {
                reply::write(
                    out,
                    &Readonly {
                        readonly: desk.is_read_only(),
                    },
                );
            }
            Request::GetPr(tuple, history) => {
                let value = desk.get_pr(&tuple, history).await?;
                reply::write(out, &One { value });
            }
            Request::TestPr(tuple, history) => {
                let value = desk.test_pr(&tuple, history).await?;
                reply::write(out, &One { value });
            }
            Request::MaxPackagePr(package) => {
                let value = desk.max_package_pr(&package).await?;
                reply::write(out, &One { value });
            }
            Request::TestPackage(package) => {
                let max = desk.max_package_pr(&package).await?;
                reply::write(
                    out,
                    &One {
                        value: max.is_some(),
                    },
                );
            }
            Request::ImportOne(_, None) => reply::write(out, &()),
            Request::ImportOne(tuple, Some(Import { value, spelled })) => {
                match desk.import_one(&tuple, &value).await? {
                    Some(_) => reply::write(out, &One { value: spelled }),
                    None => reply::write(out, &()),
                }
            }
            Request::Export {
                filter,
                history,
                with_columns,
            } => {
                let rows = desk.export(filter, history).await?;
                reply::write(out, &Export::new(&rows, with_columns));
            }
            Request::Bye => return Ok(Next::Close),
        }
        Ok(Next::Read)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.outbox.is_empty() {
            self.stream.write_all(&self.outbox).await?;
            self.outbox.clear();
            self.outbox.shrink_to(OUTBOX_BYTES);
        }
        Ok(())
    }
}
