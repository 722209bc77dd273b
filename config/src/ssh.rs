//! Hosts that are reached by ssh.

use std::str::FromStr;

use crate::newtype::text_newtype;

text_newtype!(
    /// The destination of an ssh connection: `[user@]host`.
    SshHost,
    SshHostError
);

/// The error of parsing an [`SshHost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST or USER@HOST")]
pub struct SshHostError;

impl FromStr for SshHost {
    type Err = SshHostError;

    /// Checks that a text is not an option or two words. ssh checks the rest.
    fn from_str(text: &str) -> Result<Self, SshHostError> {
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
            return Err(SshHostError);
        }
        Ok(Self(text.to_owned()))
    }
}
