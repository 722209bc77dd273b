//! Refusals: what a client sees when it does not get what it asked for.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use config::BuildId;
use config::builds::TransitionError;
use serde::Serialize;
use store::StoreError;
use tracing::error;

use crate::api::toaster;
use crate::housekeeping::retention::RetentionError;
use crate::records::RecordsError;
use crate::triggers::submission::Unfit;

/// Why a request gets no answer but a reason.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The body of a refusal (RFC 9457).
#[derive(Debug, Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

impl Refused {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            header: None,
        }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn no_build(id: BuildId) -> Self {
        Self::missing(format!(
            "there is no build {id}; `buildhost builds` shows what there is"
        ))
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn unusable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// For somebody who has shown no token.
    pub(super) fn nobody() -> Self {
        Self::unauthorized(
            "a token is needed: `Authorization: Bearer TOKEN`; `buildhost token add` makes one",
            "Bearer",
        )
    }

    /// For somebody whose token is none.
    pub(super) fn unknown_token() -> Self {
        Self::unauthorized(
            "this token is not known here; `buildhost token list` shows those that are",
            "Bearer error=\"invalid_token\"",
        )
    }

    fn unauthorized(detail: &str, challenge: &'static str) -> Self {
        let challenge = HeaderValue::from_static(challenge);
        Self {
            header: Some((header::WWW_AUTHENTICATE, challenge)),
            ..Self::new(StatusCode::UNAUTHORIZED, detail)
        }
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// For a client that is to wait before it asks again.
    pub(super) fn too_often(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("you ask too often; ask again in {seconds} s");
        Self {
            header: Some((header::RETRY_AFTER, seconds.into())),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// For somebody who asks for a build that an agent which stops cannot begin.
    pub(super) fn stopping() -> Self {
        Self::unavailable("the agent stops; ask again when it runs")
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A fault of ours: the detail goes to the log, not to the client.
    pub(super) fn fault(fault: &(dyn std::error::Error + 'static)) -> Self {
        error!("a request failed: {}", sys::error_report::chain(fault));
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the agent failed; its log says why",
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body).into_response();
        response.headers_mut().extend(self.header);
        response
    }
}

impl From<RecordsError> for Refused {
    fn from(error: RecordsError) -> Self {
        Self::fault(&error)
    }
}

impl From<Unfit> for Refused {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Senseless(words) => Self::bad(words),
            Unfit::Missing(words) => Self::missing(words),
            Unfit::Conflict(words) => Self::conflict(words),
            Unfit::Store(error) => error.into(),
            Unfit::Name(error) => Self::fault(&error),
            Unfit::Records(error) => error.into(),
        }
    }
}

impl From<TransitionError> for Refused {
    fn from(error: TransitionError) -> Self {
        Self::conflict(error.to_string())
    }
}

impl From<RetentionError> for Refused {
    fn from(error: RetentionError) -> Self {
        Self::fault(&error)
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::fault(&error)
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::missing(refusal.to_string()),
            error => Self::fault(&error),
        }
    }
}

macro_rules! rejected {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for Refused {
            fn from(rejection: $rejection) -> Self {
                Self::new(rejection.status(), rejection.body_text())
            }
        }
    )*};
}

rejected!(JsonRejection, PathRejection, QueryRejection);

/// What every unknown path gets.
pub(super) async fn no_route(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        Refused::missing(format!("there is nothing at {}", uri.path())).into_response()
    } else {
        toaster::not_found()
    }
}

/// What a path gets that does not know a method.
pub(super) async fn no_method(method: Method, uri: Uri) -> Refused {
    let detail = format!("{} does not know {method}", uri.path());
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
