//! A session of BitBake's JSON protocol.

use linerpc::{Buffers, Framing, FramingError, MessageDecoder, Next, Session};
use tokio::sync::OwnedSemaphorePermit;

use crate::access;
use crate::policy::History;
use crate::session::{AuthorizedService, Export, RequestError};
use crate::tuple::Tuple;
use crate::value::ValueError;
use crate::wire::decoder::Event;
use crate::wire::reply::{ExportReply, InvokeError, PingReply, ReadonlyReply, ValueReply};
use crate::wire::request::{Import, Request};
use crate::wire::{GREETING, MESSAGE_BYTES_MAX, ProtocolError};

/// The error that ends a session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

impl From<FramingError> for SessionError {
    fn from(error: FramingError) -> Self {
        Self::Protocol(error.into())
    }
}

impl SessionError {
    /// Returns the text that the peer receives before its connection is closed; `None` for errors
    /// on which BitBake's server also closes the connection without a reply.
    fn refusal(&self) -> Option<String> {
        match self {
            Self::Request(
                error @ (RequestError::NotServed { .. }
                | RequestError::Busy
                | RequestError::MayNotRemove
                | RequestError::Forget(_)
                | RequestError::UnknownToken(_)),
            ) => Some(error.to_string()),
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

/// A session.
#[derive(Debug)]
pub struct JsonSession {
    service: AuthorizedService,
    buffers: Buffers,
    /// The permit of an export in the output, dropped when the output is sent.
    unsent_export: Option<OwnedSemaphorePermit>,
}

impl Session for JsonSession {
    type Error = SessionError;

    fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    async fn handle(&mut self) -> Result<Next, SessionError> {
        let handled = self.handle_messages().await;
        if let Err(error) = &handled
            && let Some(message) = error.refusal()
        {
            self.buffers.reply(&InvokeError::new(message));
        }
        handled
    }

    fn output_sent(&mut self) {
        self.unsent_export = None;
    }
}

impl JsonSession {
    pub(super) fn new(service: AuthorizedService, framing: Framing) -> Self {
        let decoder = MessageDecoder::new(GREETING, MESSAGE_BYTES_MAX).with_framing(framing);
        Self {
            service,
            buffers: Buffers::new(decoder, framing),
            unsent_export: None,
        }
    }

    async fn handle_messages(&mut self) -> Result<Next, SessionError> {
        loop {
            let decoder = &mut self.buffers.decoder;
            if let Some((tuple, history)) = decoder.next_parsed(Request::parse_get_pr) {
                self.get_pr(&tuple, history).await?;
            } else {
                match decoder.next_event()? {
                    None => return Ok(Next::Read),
                    Some(Event::Greeted { needs_headers }) => self.greet(needs_headers)?,
                    Some(Event::Message(message)) => match Request::parse(message)? {
                        Request::Close => return Ok(Next::Close),
                        // In a box, because its state is large, and most requests are common.
                        request => Box::pin(self.answer(request)).await?,
                    },
                }
            }
            if self.buffers.is_output_full() || self.unsent_export.is_some() {
                return Ok(Next::Continue);
            }
        }
    }

    fn greet(&mut self, needs_headers: bool) -> Result<(), RequestError> {
        if needs_headers {
            self.buffers.output.push(b'\n');
        }
        let authorization = self.buffers.decoder.take_authorization();
        match authorization.as_deref().and_then(access::bearer) {
            Some(token) => self.service.present(token),
            None => Ok(()),
        }
    }

    async fn get_pr(&mut self, tuple: &Tuple, history: History) -> Result<(), RequestError> {
        let value = self.service.get_pr(tuple, history).await?;
        self.buffers.reply(&ValueReply { value });
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Result<(), SessionError> {
        match request {
            Request::Close => {}
            Request::Ping => self.buffers.reply(&PingReply { alive: true }),
            Request::IsReadonly => {
                let readonly = self.service.is_read_only();
                self.buffers.reply(&ReadonlyReply { readonly });
            }
            Request::GetPr(tuple, history) => self.get_pr(&tuple, history).await?,
            Request::TestPr(tuple, history) => {
                let value = self.service.test_pr(&tuple, history).await?;
                self.buffers.reply(&ValueReply { value });
            }
            Request::MaxPackagePr(package) => {
                let value = self.service.max_package_pr(&package).await?;
                self.buffers.reply(&ValueReply { value });
            }
            Request::TestPackage(package) => {
                let value = self.service.max_package_pr(&package).await?.is_some();
                self.buffers.reply(&ValueReply { value });
            }
            Request::ImportOne(_, None) => self.buffers.reply(&()),
            Request::ImportOne(tuple, Some(Import { value, raw })) => {
                match self.service.import_one(&tuple, &value).await? {
                    Some(_) => self.buffers.reply(&ValueReply { value: raw }),
                    None => self.buffers.reply(&()),
                }
            }
            Request::Forget(request) => {
                let rows = self.service.forget(&request).await?;
                self.buffers.reply(&ExportReply::new(&rows, false));
            }
            Request::Export {
                filter,
                history,
                with_columns,
            } => {
                let Export { rows, permit } = self.service.export(filter, history).await?;
                self.buffers.reply(&ExportReply::new(&rows, with_columns));
                self.unsent_export = Some(permit);
            }
        }
        Ok(())
    }
}
