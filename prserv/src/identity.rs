//! The identity of a peer, for the log and the audit log.

use std::fmt;
use std::sync::Arc;

use config::text::printable;

/// The name of a peer and that of the token that it has presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// An address, the user at the other end of a Unix socket, or the guest that owns the network.
    pub name: Arc<str>,
    /// The name of the token.
    pub token: Option<Arc<str>>,
}

impl Identity {
    /// Creates the identity of a peer without a token.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            token: None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        match &self.token {
            Some(token) => write!(out, " with token {}", printable(token)),
            None => Ok(()),
        }
    }
}
