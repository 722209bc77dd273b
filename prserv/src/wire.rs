//! BitBake's protocol as values: bytes to messages, messages to requests, replies to bytes.
//! Pure, without any I/O.

pub mod decoder;

pub mod request;

pub mod reply;

#[cfg(feature = "xmlrpc")]
pub mod xmlrpc;

use crate::tuple::Tuple;
use crate::value::ValueError;

/// The maximum length of a line, including its newline.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The maximum length of a chunked request.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// The maximum length of a chunked reply: an export of millions of rows.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The length of a chunk. Messages of at least this length are sent in chunks.
pub const CHUNK_CHARS: usize = 32 * 1024 - 1;

/// A violation of the protocol by the peer. It is logged, and the connection is closed without a
/// reply, as BitBake's server does. Only a value that is too long is refused with a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// There is no newline within [`LINE_BYTES_MAX`].
    #[error("a line is too long")]
    LineTooLong,
    /// The chunks exceed [`MESSAGE_BYTES_MAX`] or [`REPLY_BYTES_MAX`].
    #[error("a chunked message is too long")]
    MessageTooLong,
    /// A line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotUtf8,
    /// The first line is not `PRSERVICE 1.0`.
    #[error("the greeting {0:?} is not `PRSERVICE 1.0`")]
    Greeting(String),
    /// A header has no colon.
    #[error("the header {0:?} has no colon")]
    Header(String),
    /// A message is not JSON.
    #[error("a message is not JSON: {0}")]
    NotJson(String),
    /// A message is JSON but not a known request.
    #[error("a message contains no known request")]
    UnknownRequest,
    /// A member of a request is missing.
    #[error("a request lacks `{0}`")]
    MissingMember(&'static str),
    /// A member of a request has an unusable type.
    #[error("`{0}` of a request has a wrong type")]
    WrongType(&'static str),
    /// The value to import is not a revision, or too long.
    #[error("the value of {tuple} cannot be imported")]
    Value {
        /// The key of the value.
        tuple: Box<Tuple>,
        /// The reason.
        source: ValueError,
    },
    /// The connection ended within a line or a message.
    #[error("the connection ended within a message")]
    Truncated,
}
