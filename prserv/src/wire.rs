//! BitBake's protocol as values: bytes to messages, messages to requests, replies to bytes.
//! Nothing here touches a socket.

pub mod inbox;

pub mod request;

pub mod reply;

pub mod xmlrpc;

use crate::value::ValueError;

/// The longest line, its newline included.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The longest request that comes in pieces.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest reply that comes in pieces: an export of millions of rows.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Texts of this length and more are sent in pieces of this length.
pub const CHUNK_CHARS: usize = 32 * 1024 - 1;

/// What a peer did wrong. It is told nothing, as BitBake's server tells nothing; we log it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No newline within [`LINE_BYTES_MAX`].
    #[error("a line is too long")]
    LineTooLong,
    /// More pieces than [`MESSAGE_BYTES_MAX`] or [`REPLY_BYTES_MAX`].
    #[error("a message in pieces is too long")]
    MessageTooLong,
    /// Not UTF-8.
    #[error("a line is not UTF-8")]
    NotText,
    /// The first line is not `PRSERVICE 1.0`.
    #[error("the greeting {0:?} is not `PRSERVICE 1.0`")]
    Greeting(String),
    /// A header without a colon.
    #[error("the header {0:?} has no colon")]
    Header(String),
    /// Not JSON.
    #[error("a message is not JSON: {0}")]
    NotJson(String),
    /// JSON, but nothing we know.
    #[error("a message holds no known request")]
    Unknown,
    /// A member of a request is missing.
    #[error("a request lacks `{0}`")]
    Missing(&'static str),
    /// A member of a request has a type that cannot be used.
    #[error("`{0}` of a request has a wrong type")]
    Type(&'static str),
    /// A value to import is no revision.
    #[error("`value` of a request is malformed")]
    Value(#[from] ValueError),
    /// The connection ended within a line or a message.
    #[error("the connection ended within a message")]
    Cut,
}
