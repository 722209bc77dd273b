//! The constants and the errors of the framing.

/// The maximum length of a line, including its newline.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The length of a chunk. Messages of at least this length are sent in chunks.
pub const CHUNK_CHARS: usize = 32 * 1024 - 1;

/// The format of long messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// In chunks.
    Chunked,
    /// As one line, for transports with frames of their own.
    SingleLine,
}

/// The first line of a client: the protocol and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The name of the protocol.
    pub protocol: &'static str,
    /// The major and the minor version.
    pub version: [u32; 2],
}

impl Greeting {
    /// Accepts the name and the version, which is compared as two integers.
    pub fn check(&self, line: &str) -> Result<(), FramingError> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_supported = match fields[..] {
            [protocol, version] if protocol == self.protocol => {
                let numbers: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
                numbers == self.version.map(Ok)
            }
            _ => false,
        };
        if is_supported {
            Ok(())
        } else {
            Err(FramingError::Greeting {
                line: truncated(line),
                expected: *self,
            })
        }
    }

    /// Returns the lines that a client sends first.
    pub fn to_lines(&self) -> String {
        format!("{self}\nneeds-headers: false\n\n")
    }
}

impl std::fmt::Display for Greeting {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor] = self.version;
        write!(out, "{} {major}.{minor}", self.protocol)
    }
}

/// A violation of the framing by the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// There is no newline within [`LINE_BYTES_MAX`].
    #[error("a line is too long")]
    LineTooLong,
    /// The chunks exceed the limit of a message.
    #[error("a chunked message is too long")]
    MessageTooLong,
    /// A line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotUtf8,
    /// The first line is not the greeting of the protocol.
    #[error("the greeting {line:?} is not `{expected}`")]
    Greeting {
        /// The beginning of the line.
        line: String,
        /// The greeting of the protocol.
        expected: Greeting,
    },
    /// A header has no colon.
    #[error("the header {0:?} has no colon")]
    Header(String),
    /// A message is not JSON.
    #[error("a message is not JSON: {0}")]
    NotJson(String),
    /// The connection ended within a line or a message.
    #[error("the connection ended within a message")]
    Truncated,
}

/// Returns the beginning of a line for the log.
pub(crate) fn truncated(line: &str) -> String {
    line.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_is_a_name_and_a_version_of_two_integers() {
        let greeting = Greeting {
            protocol: "PRSERVICE",
            version: [1, 0],
        };
        for good in ["PRSERVICE 1.0", "  PRSERVICE   01.00 \r", "PRSERVICE\t1.0"] {
            assert_eq!(greeting.check(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            "PRSERVICE",
            "PRSERVICE 1",
            "PRSERVICE 1.1",
            "PRSERVICE 1.0.0",
            "prservice 1.0",
            "OEHASHEQUIV 1.0",
            "PRSERVICE 1.0 x",
            "PRSERVICE 1.x",
        ] {
            assert!(greeting.check(bad).is_err(), "{bad:?}");
        }
        assert_eq!(greeting.check(&greeting.to_string()), Ok(()));
    }
}
