//! BitBake's protocol as values: messages to requests, replies to bytes. Pure, without any I/O.

pub mod request;

pub mod reply;

#[cfg(feature = "xmlrpc")]
pub mod xmlrpc;

pub use linerpc::decoder;
use linerpc::{FramingError, Greeting};

use crate::tuple::Tuple;
use crate::value::ValueError;

/// The greeting of the protocol.
pub const GREETING: Greeting = Greeting {
    protocol: "PRSERVICE",
    version: [1, 0],
};

/// The maximum length of a chunked request.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// The maximum length of a chunked reply: an export of millions of rows.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A violation of the protocol by the peer. It is logged, and the connection is closed without a
/// reply, as BitBake's server does. Only a value that is too long is refused with a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are no messages.
    #[error(transparent)]
    Framing(#[from] FramingError),
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
}
