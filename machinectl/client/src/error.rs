//! The ways in which a request fails.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::builds::Problem;
use hyper::StatusCode;
use serde::Deserialize;

/// The beginning of an agent's refusal of a path that it does not know.
const UNKNOWN_ROUTE: &str = "there is no route ";

/// A failed connection to an agent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens on the socket.
    #[error("no agent answers at {}; is buildhost-agent running, and is this its socket?", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The user has no right to use the socket.
    #[error("this user may not use {}; root may, and the members of the group in the agent's setting http.group", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// Nothing answers at an address.
    #[error(
        "no agent answers at {place}; is buildhost-agent running there, and is this its address?"
    )]
    NotReached {
        /// The address.
        place: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The connection took too long.
    #[error("{place} did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The address.
        place: String,
        /// The limit.
        limit: Duration,
    },
    /// TLS failed.
    #[error("no secure connection to {place}: {reason}")]
    Tls {
        /// The address.
        place: String,
        /// The reason and the remedy.
        reason: String,
    },
    /// The file of authorities cannot be used.
    #[error("cannot use the certificates in {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// ssh failed.
    #[error("{place} cannot be reached: {reason}")]
    Ssh {
        /// The host.
        place: String,
        /// The reason and the remedy.
        reason: String,
    },
    /// The program on the other host failed.
    #[error("{place}: {message}")]
    Relay {
        /// The host.
        place: String,
        /// The exit code; `None` if it has none.
        code: Option<i32>,
        /// The message and the remedy.
        message: String,
    },
}

/// The body of a refusal.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reason {
    Agent(Problem),
    Farm { error: String },
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The agent refused the request.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The agent's reason and remedy.
        detail: String,
    },
    /// The agent needs a token, and the client has none.
    #[error(
        "{place} needs a token; name its file with `--token-file`, or store it with `buildhost context add`"
    )]
    NoToken {
        /// The address.
        place: String,
    },
    /// The agent does not know the route.
    #[error("the agent at {place} is older than this program ({detail}); upgrade it first")]
    OldAgent {
        /// The agent.
        place: String,
        /// The agent's refusal.
        detail: String,
    },
    /// The agent does not answer in time.
    #[error("the agent did not answer within {} s", limit.as_secs())]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The other end does not speak HTTP.
    #[error("{place} does not answer in HTTP; does it need https://?")]
    NotHttp {
        /// The address.
        place: String,
    },
    /// The connection broke, or the answer is malformed.
    #[error("cannot read the agent's answer")]
    Answer(#[source] Box<dyn Error + Send + Sync>),
    /// The document cannot be written where the caller wants it: not the agent's fault.
    #[error("cannot write what the agent sends")]
    Write(#[source] std::io::Error),
    /// The connection to a console or a command failed.
    #[error("the connection to the guest failed")]
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
    pub(crate) fn refused(place: &str, status: StatusCode, body: &str) -> Self {
        let detail = match serde_json::from_str::<Reason>(body) {
            Ok(Reason::Agent(problem)) => problem.detail,
            Ok(Reason::Farm { error }) => error,
            Err(_) if body.is_empty() => status.to_string(),
            Err(_) => body.to_owned(),
        };
        let is_old = status == StatusCode::NOT_FOUND && detail.starts_with(UNKNOWN_ROUTE)
            || status == StatusCode::METHOD_NOT_ALLOWED;
        if is_old {
            let place = place.to_owned();
            return Self::OldAgent { place, detail };
        }
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
            let error = ClientError::refused("h", StatusCode::CONFLICT, body);
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn an_agent_that_does_not_know_a_route_is_older() {
        let error = ClientError::refused("h", StatusCode::NOT_FOUND, "there is no route /api/v1/x");
        assert!(matches!(error, ClientError::OldAgent { .. }), "{error}");
        let error = ClientError::refused("h", StatusCode::NOT_FOUND, "there is no build 7");
        assert!(matches!(error, ClientError::Refused { .. }), "{error}");
    }
}
