//! The ways in which a request fails.

use std::error::Error;
use std::path::PathBuf;

use config::builds::Problem;
use reqwest::StatusCode;

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens on the socket.
    #[error("no agent answers at {}; is buildhost-agent running, and is this its socket?", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The agent refused the request.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The agent's reason and remedy.
        detail: String,
    },
    /// The connection broke, or the answer is malformed.
    #[error("cannot read the agent's answer")]
    Answer(#[from] reqwest::Error),
    /// The connection broke while the agent sent a document.
    #[error("cannot read the agent's answer")]
    Body(#[source] std::io::Error),
    /// The document cannot be written where the caller wants it: not the agent's fault.
    #[error("cannot write what the agent sends")]
    Write(#[source] std::io::Error),
    /// The connection to a console failed.
    #[error("cannot connect to the console")]
    Console(#[source] Box<dyn Error + Send + Sync>),
    /// The filter of a listing cannot be written into an address.
    #[error("cannot encode the filter")]
    Query(#[from] serde_urlencoded::ser::Error),
}

impl ClientError {
    /// Returns true if the reader of the output has read enough, as `head` does.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    /// Returns the refusal in an answer's body: the detail of a problem, or the text itself.
    pub(crate) fn refused(status: StatusCode, body: &str) -> Self {
        let detail = match serde_json::from_str::<Problem>(body) {
            Ok(problem) => problem.detail,
            Err(_) if body.is_empty() => status.to_string(),
            Err(_) => body.to_owned(),
        };
        Self::Refused {
            status: status.as_u16(),
            detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_without_a_problem_has_its_text_or_its_status() {
        for (body, expected) in [
            ("", "409 Conflict"),
            ("in use", "in use"),
            (
                r#"{"type": "about:blank", "title": "Conflict", "status": 409, "detail": "busy"}"#,
                "busy",
            ),
        ] {
            let error = ClientError::refused(StatusCode::CONFLICT, body);
            assert_eq!(error.to_string(), expected);
        }
    }
}
