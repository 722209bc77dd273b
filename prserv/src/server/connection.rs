//! One connection: requests in, replies out, strictly in order.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::Peer;
use crate::service::{Service, ServiceError};
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
    Service(#[from] ServiceError),
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
    service: &Service,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: &Peer,
    stop: watch::Receiver<bool>,
) {
    let mut connection = Connection {
        service,
        stream,
        inbox: Inbox::default(),
        outbox: Vec::new(),
    };
    match connection.run(stop).await {
        Ok(()) => {}
        Err(End::Io(error)) => tracing::debug!(peer = peer.name, %error, "a connection broke"),
        Err(error) => tracing::warn!(peer = peer.name, %error, "closing a connection"),
    }
}

struct Connection<'a, S> {
    service: &'a Service,
    stream: S,
    inbox: Inbox,
    outbox: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn run(&mut self, mut stop: watch::Receiver<bool>) -> Result<(), End> {
        loop {
            let handled = self.handle_all().await;
            self.flush().await?;
            if let Next::Close = handled? {
                return Ok(self.stream.shutdown().await?);
            }
            let buffer = self.inbox.buffer();
            buffer.reserve(READ_BYTES);
            let read = tokio::select! {
                biased;
                read = self.stream.read_buf(buffer) => read?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            if read == 0 {
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
        let (service, out) = (self.service, &mut self.outbox);
        match request {
            Request::Ping => reply::write(out, &Pong { alive: true }),
            Request::IsReadonly => {
                reply::write(
                    out,
                    &Readonly {
                        readonly: service.is_read_only(),
                    },
                );
            }
            Request::GetPr(tuple, history) => {
                let value = service.get_pr(&tuple, history).await?;
                reply::write(out, &One { value });
            }
            Request::TestPr(tuple, history) => {
                let value = service.test_pr(&tuple, history).await?;
                reply::write(out, &One { value });
            }
            Request::MaxPackagePr(package) => {
                let value = service.max_package_pr(&package).await?;
                reply::write(out, &One { value });
            }
            Request::TestPackage(package) => {
                reply::write(
                    out,
                    &One {
                        value: service.test_package(&package).await?,
                    },
                );
            }
            Request::ImportOne(_, None) => reply::write(out, &()),
            Request::ImportOne(tuple, Some(Import { value, spelled })) => {
                match service.import_one(&tuple, &value).await? {
                    Some(_) => reply::write(out, &One { value: spelled }),
                    None => reply::write(out, &()),
                }
            }
            Request::Export {
                filter,
                history,
                with_columns,
            } => {
                let rows = service.export(filter, history).await?;
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
