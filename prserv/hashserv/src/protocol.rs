//! BitBake's protocol OEHASHEQUIV 1.1 as values: messages to requests, lines of streams to queries.
//! Pure, without any I/O.

mod arguments;

pub mod request;

pub mod reply;

use linerpc::{FramingError, Greeting};

pub use request::{Request, StreamMode};

/// The greeting of the protocol.
pub const GREETING: Greeting = Greeting {
    protocol: "OEHASHEQUIV",
    version: [1, 1],
};

/// The maximum length of a message. Reports contain the names of all files of a task's output.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum length of each hash and name in a request.
pub const NAME_BYTES_MAX: usize = 1024;

/// The line that ends a stream.
pub const STREAM_END: &str = "END";

/// The reply that begins a stream, and the line that confirms its end.
pub const OK: &str = "ok";

/// A violation of the protocol by the peer. It is logged and told to the peer, then the connection
/// is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The bytes are no messages.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A message is JSON but not a known request.
    #[error("the message contains no known request")]
    UnknownRequest,
    /// A member of a request is missing.
    #[error("the request lacks `{0}`")]
    MissingMember(&'static str),
    /// A member of a request has an unusable type.
    #[error("`{0}` of the request has a wrong type")]
    WrongType(&'static str),
    /// A member of a request exceeds [`NAME_BYTES_MAX`].
    #[error("`{0}` of the request is too long")]
    TooLong(&'static str),
    /// A unihash is not 64 hexadecimal digits. BitBake's server sends the same text.
    #[error("Invalid unihash")]
    Unihash,
    /// A condition names a column that no table has.
    #[error("there is no column `{0}`; see get-db-query-columns")]
    UnknownColumn(String),
    /// A line of `get-stream` is not a method and a taskhash.
    #[error("a line of get-stream is a method and a taskhash")]
    StreamLine,
    /// A line of `gc-mark-stream` is not JSON.
    #[error("Could not decode JSONL input: {0}")]
    MarkLine(String),
}

/// Returns true for 64 hexadecimal digits in lower case.
pub fn is_unihash(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
