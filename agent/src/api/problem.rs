//! Refusals: what a client sees when it does not get what it asked for.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use config::BuildId;
use config::builds::Problem;
use store::StoreError;
use tracing::error;

use crate::records::RecordsError;

/// Why a request gets no answer but a reason.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    detail: String,
}

impl Refused {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
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
            "there is no build {id}; `machinectl builds` shows what there is"
        ))
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// A fault of ours: the detail goes to the log, not to the client.
    pub(super) fn fault(fault: &(dyn std::error::Error + 'static)) -> Self {
        error!("a request failed: {}", crate::chain(fault));
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the agent failed; its log says why",
        )
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = Problem {
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            body,
        )
            .into_response()
    }
}

impl From<RecordsError> for Refused {
    fn from(error: RecordsError) -> Self {
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
pub(super) async fn no_route(uri: Uri) -> Refused {
    Refused::missing(format!("there is nothing at {}", uri.path()))
}
