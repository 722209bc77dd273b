//! A session, independent of its transport: bytes in, bytes out, in order.

use std::error::Error;
use std::future::Future;

use axum::Router;
use serde::Serialize;
use tokio::sync::watch;

use crate::decoder::MessageDecoder;
use crate::encoder;
use crate::framing::Framing;

/// The size from which collected replies to pipelined requests are sent.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// The capacity for replies that an idle connection keeps.
const IDLE_OUTPUT_BYTES: usize = 4 * 1024;

/// The access of one peer to a service.
pub trait Endpoint: Clone + Send + Sync + 'static {
    /// A session of the line-based protocol.
    type Session: Session + 'static;

    /// Returns the name of the peer in the log.
    fn peer_name(&self) -> &str;

    /// Begins a session.
    fn session(&self, framing: Framing) -> Self::Session;

    /// Returns the pages that the same port serves over HTTP. They end when `stop` becomes true.
    fn router(&self, stop: watch::Receiver<bool>) -> Router;
}

/// A session of the line-based protocol.
pub trait Session: Send {
    /// The error that ends a session.
    type Error: Error + Send + Sync + 'static;

    /// Returns the received bytes and the bytes to send.
    fn buffers(&mut self) -> &mut Buffers;

    /// Handles the received bytes. The output must be sent even after an error.
    fn handle(&mut self) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// Tells the session that its output was sent.
    fn output_sent(&mut self) {}
}

/// The action after the output is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read more bytes.
    Read,
    /// Handle the bytes that were already read.
    Continue,
    /// Close the connection as the client requested.
    Close,
}

/// The received bytes of a session and the bytes to send.
#[derive(Debug)]
pub struct Buffers {
    /// The received bytes.
    pub decoder: MessageDecoder,
    /// The bytes to send.
    pub output: Vec<u8>,
    framing: Framing,
}

impl Buffers {
    /// Creates empty buffers.
    pub fn new(decoder: MessageDecoder, framing: Framing) -> Self {
        Self {
            decoder,
            output: Vec::new(),
            framing,
        }
    }

    /// Appends a message to the output.
    pub fn reply(&mut self, message: &impl Serialize) {
        match self.framing {
            Framing::Chunked => encoder::write(&mut self.output, message),
            Framing::SingleLine => encoder::write_line(&mut self.output, message),
        }
    }

    /// Returns true if the output should be sent before more requests are answered.
    pub fn is_output_full(&self) -> bool {
        self.output.len() > OUTPUT_BYTES_MAX
    }

    /// Forgets the output, which was sent.
    pub(crate) fn clear_output(&mut self) {
        self.output.clear();
        self.output.shrink_to(IDLE_OUTPUT_BYTES);
    }
}
