//! A session of BitBake's JSON protocol, independent of its transport: bytes in, bytes out, in
//! order.

use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::session::{AuthorizedService, Export, RequestError};
use crate::value::ValueError;
use crate::wire::ProtocolError;
use crate::wire::decoder::{Event, MessageDecoder};
use crate::wire::reply::{self, ExportReply, InvokeError, PingReply, ReadonlyReply, ValueReply};
use crate::wire::request::{Import, Request};

/// The size from which collected replies to pipelined requests are sent.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// The error that ends a session.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl SessionError {
    /// Returns the text that the peer receives before its connection is closed; `None` for errors
    /// on which BitBake's server also closes the connection without a reply.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Request(error @ (RequestError::NotServed { .. } | RequestError::Busy)) => {
                Some(error.to_string())
            }
            Self::Protocol(
                error @ ProtocolError::Value {
                    source: source @ ValueError::TooLong,
                    ..
                },
            ) => Some(format!("{error}: {source}")),
            Self::Protocol(_) | Self::Request(_) => None,
        }
    }
}

/// The action after the output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read more bytes.
    Read,
    /// Handle the bytes that were already read.
    Continue,
    /// Close the connection as the client requested.
    Close,
}

/// The format of long replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// In chunks.
    Chunked,
    /// As one line, for transports with frames of their own.
    SingleLine,
}

/// A session.
#[derive(Debug)]
pub(super) struct JsonSession {
    service: AuthorizedService,
    framing: Framing,
    /// The received bytes.
    pub(super) decoder: MessageDecoder,
    /// The bytes to send.
    pub(super) output: Vec<u8>,
    /// The permit of an export in the output, dropped when the output is sent.
    pub(super) unsent_export: Option<OwnedSemaphorePermit>,
}

impl JsonSession {
    pub(super) fn new(
        service: AuthorizedService,
        decoder: MessageDecoder,
        framing: Framing,
    ) -> Self {
        Self {
            service,
            framing,
            decoder,
            output: Vec::new(),
            unsent_export: None,
        }
    }

    /// Handles the received bytes. The output must be sent even after an error.
    pub(super) async fn handle(&mut self) -> Result<Next, SessionError> {
        let handled = self.handle_messages().await;
        if let Err(error) = &handled
            && let Some(message) = error.refusal()
        {
            self.reply(&InvokeError::new(message));
        }
        handled
    }

    async fn handle_messages(&mut self) -> Result<Next, SessionError> {
        while let Some(event) = self.decoder.next_event()? {
            match event {
                Event::Greeted {
                    needs_headers: false,
                } => {}
                Event::Greeted {
                    needs_headers: true,
                } => self.output.push(b'\n'),
                Event::Message(message) => match Request::parse(message)? {
                    Request::Close => return Ok(Next::Close),
                    request => self.answer(request).await?,
                },
            }
            if self.output.len() > OUTPUT_BYTES_MAX || self.unsent_export.is_some() {
                return Ok(Next::Continue);
            }
        }
        Ok(Next::Read)
    }

    async fn answer(&mut self, request: Request) -> Result<(), SessionError> {
        match request {
            Request::Close => {}
            Request::Ping => self.reply(&PingReply { alive: true }),
            Request::IsReadonly => {
                let readonly = self.service.is_read_only();
                self.reply(&ReadonlyReply { readonly });
            }
            Request::GetPr(tuple, history) => {
                let value = self.service.get_pr(&tuple, history).await?;
                self.reply(&ValueReply { value });
            }
            Request::TestPr(tuple, history) => {
                let value = self.service.test_pr(&tuple, history).await?;
                self.reply(&ValueReply { value });
            }
            Request::MaxPackagePr(package) => {
                let value = self.service.max_package_pr(&package).await?;
                self.reply(&ValueReply { value });
            }
            Request::TestPackage(package) => {
                let value = self.service.max_package_pr(&package).await?.is_some();
                self.reply(&ValueReply { value });
            }
            Request::ImportOne(_, None) => self.reply(&()),
            Request::ImportOne(tuple, Some(Import { value, raw })) => {
                match self.service.import_one(&tuple, &value).await? {
                    Some(_) => self.reply(&ValueReply { value: raw }),
                    None => self.reply(&()),
                }
            }
            Request::Export {
                filter,
                history,
                with_columns,
            } => {
                let Export { rows, permit } = self.service.export(filter, history).await?;
                self.reply(&ExportReply::new(&rows, with_columns));
                self.unsent_export = Some(permit);
            }
        }
        Ok(())
    }

    fn reply(&mut self, message: &impl Serialize) {
        match self.framing {
            Framing::Chunked => reply::write(&mut self.output, message),
            Framing::SingleLine => reply::write_line(&mut self.output, message),
        }
    }
}
