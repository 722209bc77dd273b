//! A dialogue with one peer, whatever carries it: bytes in, bytes out, strictly in order.

use serde::Serialize;

use crate::desk::{Desk, DeskError};
use crate::wire::Fault;
use crate::wire::inbox::{Event, Inbox};
use crate::wire::reply::{self, Export, One, Pong, Readonly};
use crate::wire::request::{Import, Request};

/// Replies to pipelined requests are collected up to this size before they are sent.
const OUTBOX_BYTES: usize = 64 * 1024;

/// Why a dialogue ends before its peer leaves.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Desk(#[from] DeskError),
}

/// What to do once the outbox is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read more.
    Read,
    /// Handle what is there already.
    Go,
    /// Close: the peer has taken its leave.
    Close,
}

/// How long replies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// In pieces.
    Pieces,
    /// As one line: websockets have frames of their own.
    Whole,
}

/// A dialogue.
#[derive(Debug)]
pub(super) struct Dialogue {
    desk: Desk,
    framing: Framing,
    /// What came in.
    pub(super) inbox: Inbox,
    /// What is to be sent.
    pub(super) outbox: Vec<u8>,
}

impl Dialogue {
    pub(super) fn new(desk: Desk, inbox: Inbox, framing: Framing) -> Self {
        Self {
            desk,
            framing,
            inbox,
            outbox: Vec::new(),
        }
    }

    /// Handles what has come in. Also after an error the outbox is to be sent.
    pub(super) async fn handle(&mut self) -> Result<Next, End> {
        while let Some(event) = self.inbox.next_event()? {
            match event {
                Event::Greeted {
                    needs_headers: false,
                } => {}
                Event::Greeted {
                    needs_headers: true,
                } => self.outbox.push(b'\n'),
                Event::Message(message) => match Request::parse(message)? {
                    Request::Bye => return Ok(Next::Close),
                    request => self.answer(request).await?,
                },
            }
            if self.outbox.len() > OUTBOX_BYTES {
                return Ok(Next::Go);
            }
        }
        Ok(Next::Read)
    }

    async fn answer(&mut self, request: Request) -> Result<(), End> {
        match request {
            Request::Bye => {}
            Request::Ping => self.reply(&Pong { alive: true }),
            Request::IsReadonly => {
                let readonly = self.desk.is_read_only();
                self.reply(&Readonly { readonly });
            }
            Request::GetPr(tuple, history) => {
                let value = self.desk.get_pr(&tuple, history).await?;
                self.reply(&One { value });
            }
            Request::TestPr(tuple, history) => {
                let value = self.desk.test_pr(&tuple, history).await?;
                self.reply(&One { value });
            }
            Request::MaxPackagePr(package) => {
                let value = self.desk.max_package_pr(&package).await?;
                self.reply(&One { value });
            }
            Request::TestPackage(package) => {
                let value = self.desk.max_package_pr(&package).await?.is_some();
                self.reply(&One { value });
            }
            Request::ImportOne(_, None) => self.reply(&()),
            Request::ImportOne(tuple, Some(Import { value, spelled })) => {
                match self.desk.import_one(&tuple, &value).await? {
                    Some(_) => self.reply(&One { value: spelled }),
                    None => self.reply(&()),
                }
            }
            Request::Export {
                filter,
                history,
                with_columns,
            } => {
                let rows = self.desk.export(filter, history).await?;
                self.reply(&Export::new(&rows, with_columns));
            }
        }
        Ok(())
    }

    fn reply(&mut self, message: &impl Serialize) {
        match self.framing {
            Framing::Pieces => reply::write(&mut self.outbox, message),
            Framing::Whole => reply::write_line(&mut self.outbox, message),
        }
    }
}
