//! The reasons why another host does not do what was requested.

use crate::{Refusal, RefusalKind};

/// A reason why another host does not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum RemoteRefusal {
    /// The host cannot be reached, or the connection broke.
    #[error("cannot reach {host}: {message}; nothing there is left half done, so retry later")]
    Unreachable {
        /// The host.
        host: String,
        /// The message of ssh.
        message: String,
    },
    /// The host does not accept this client, or its key is not accepted here.
    #[error("cannot log in to {host}: {message}; retrying does not help: {remedy}")]
    Login {
        /// The host.
        host: String,
        /// The message of ssh.
        message: String,
        /// The remedy.
        remedy: String,
    },
    /// The program on the host failed, or its answer is not understood.
    #[error("{host}: {message}")]
    Failed {
        /// The host.
        host: String,
        /// The program's exit code; `None` if it succeeded with an unknown answer.
        code: Option<i32>,
        /// The program's message or answer.
        message: String,
    },
}

impl Refusal for RemoteRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Unreachable { .. } | Self::Login { .. } | Self::Failed { code: None, .. } => {
                RefusalKind::Unreachable
            }
            Self::Failed {
                code: Some(code), ..
            } => RefusalKind::Remote(*code),
        }
    }
}
