//! Error responses: problem details in JSON (RFC 9457), and their HTTP statuses.

use std::error::Error;
use std::time::Duration;

use axum::extract::rejection::{FormRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use config::BuildId;
use config::builds::TransitionError;
use config::text::printable;
use records::RecordsError;
use serde::Serialize;
use store::{RefusalKind, StoreError};
use tracing::error;
use yocto::project::ProjectFault;
use yocto::{CatalogError, MirrorError, PrepareError};

use super::toaster;
use crate::housekeeping::retention::RetentionError;
use crate::triggers::layers::UpdateError;
use crate::triggers::projects::ProjectBuildError;
use crate::triggers::submission::InvalidRequest;

/// A response to a request that is refused or has failed.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

/// The body of an error response.
#[derive(Debug, Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
}

impl ApiError {
    fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            header: None,
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn build_not_found(id: BuildId) -> Self {
        Self::not_found(format!(
            "there is no build {id}; `buildhost builds` lists all builds"
        ))
    }

    pub(super) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(super) fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail)
    }

    pub(super) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    pub(super) fn payload_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// Returns the response to a request without a token.
    pub(super) fn missing_token() -> Self {
        Self::unauthorized(
            "a token is required: `Authorization: Bearer TOKEN`; `buildhost token add` creates one, and \
             in a browser /login signs in with it",
            "Bearer",
        )
    }

    /// Returns the response to a request with an unknown token.
    pub(super) fn invalid_token() -> Self {
        Self::unauthorized(
            "the token is unknown; `buildhost token list` lists the tokens of this host",
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

    /// Returns the response to a request that has the cookie of a browser, and that no page of this
    /// server made.
    pub(super) fn foreign_page() -> Self {
        Self::forbidden(
            "a web session can make this request only from a page of this server; programs send \
             `Authorization: Bearer TOKEN`",
        )
    }

    /// Returns the response to a client that exceeds its rate and must wait for `wait`.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("too many requests; try again in {seconds} s");
        Self {
            header: Some((header::RETRY_AFTER, seconds.into())),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail)
        }
    }

    /// Returns the response to a submission that a stopping agent cannot accept.
    pub(super) fn stopping() -> Self {
        Self::unavailable("the agent is stopping; try again when it has restarted")
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Logs an internal error and returns the response, which does not contain its text.
    pub(super) fn internal(error: &(dyn Error + 'static)) -> Self {
        error!(error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed; the agent's log has the cause",
        )
    }
}

impl ApiError {
    /// Returns the status, the error with its remedy, and the header that belongs to it.
    pub(super) fn parts(self) -> (StatusCode, String, Option<(HeaderName, HeaderValue)>) {
        (self.status, self.detail, self.header)
    }
}

impl IntoResponse for ApiError {
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

impl From<RecordsError> for ApiError {
    fn from(error: RecordsError) -> Self {
        Self::internal(&error)
    }
}

impl From<InvalidRequest> for ApiError {
    fn from(error: InvalidRequest) -> Self {
        match error {
            InvalidRequest::Malformed(reason) => Self::bad_request(reason),
            InvalidRequest::Missing(reason) => Self::not_found(reason),
            InvalidRequest::Conflict(reason) => Self::conflict(reason),
            InvalidRequest::Forbidden(reason) => Self::forbidden(reason),
            InvalidRequest::Secrets(error) => error.into(),
            InvalidRequest::Store(error) => error.into(),
            InvalidRequest::Name(error) => Self::internal(&error),
            InvalidRequest::Records(error) => error.into(),
        }
    }
}

impl From<CatalogError> for ApiError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NoRelease(_) | CatalogError::NoLayer(_) | CatalogError::NoProject(_) => {
                Self::not_found(error.to_string())
            }
            CatalogError::NotAdded { .. }
            | CatalogError::Needed { .. }
            | CatalogError::ProjectExists(_)
            | CatalogError::Full => Self::conflict(error.to_string()),
            CatalogError::Fixtures(_) => Self::unprocessable(error.to_string()),
            error @ (CatalogError::Database { .. } | CatalogError::Newer { .. }) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<ProjectFault> for ApiError {
    fn from(error: ProjectFault) -> Self {
        Self::unprocessable(error.to_string())
    }
}

impl From<PrepareError> for ApiError {
    fn from(error: PrepareError) -> Self {
        let text = || sys::error_report::chain(&error);
        match error {
            PrepareError::Fault(fault) => fault.into(),
            PrepareError::Catalog(error) => error.into(),
            PrepareError::Layers(_)
            | PrepareError::NotThere { .. }
            | PrepareError::NoTargets(_)
            | PrepareError::NotAncestor { .. } => Self::unprocessable(error.to_string()),
            PrepareError::Mirror(MirrorError::Unreachable { .. }) => {
                Self::new(StatusCode::BAD_GATEWAY, text())
            }
            PrepareError::Mirror(MirrorError::Forbidden(reason)) => Self::forbidden(reason),
            PrepareError::Mirror(error @ MirrorError::NoReference { .. }) => {
                Self::not_found(error.to_string())
            }
            error @ (PrepareError::Mirror(_) | PrepareError::Store { .. }) => {
                Self::internal(&error)
            }
        }
    }
}

impl From<UpdateError> for ApiError {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::Address(error) => Self::unprocessable(error.to_string()),
            UpdateError::NoIndex => Self::conflict(error.to_string()),
            UpdateError::Catalog(error) => error.into(),
        }
    }
}

impl From<ProjectBuildError> for ApiError {
    fn from(error: ProjectBuildError) -> Self {
        match error {
            ProjectBuildError::Prepare(error) => error.into(),
            ProjectBuildError::Invalid(error) => error.into(),
            ProjectBuildError::Records(error) => error.into(),
        }
    }
}

impl From<TransitionError> for ApiError {
    fn from(error: TransitionError) -> Self {
        Self::conflict(error.to_string())
    }
}

impl From<RetentionError> for ApiError {
    fn from(error: RetentionError) -> Self {
        Self::internal(&error)
    }
}

impl From<std::io::Error> for ApiError {
    fn from(error: std::io::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            Some(kind) => Self::new(status_of(kind), error.to_string()),
            None => Self::internal(&error),
        }
    }
}

/// Returns the status for a refusal of the store.
fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::NoVolume | RefusalKind::NotFound => StatusCode::NOT_FOUND,
        RefusalKind::Exists
        | RefusalKind::NotNewer
        | RefusalKind::NoParent
        | RefusalKind::InUse
        | RefusalKind::Locked
        | RefusalKind::Deleting
        | RefusalKind::Differs
        | RefusalKind::Invalid => StatusCode::CONFLICT,
        RefusalKind::WrongName | RefusalKind::BadStream => StatusCode::UNPROCESSABLE_ENTITY,
        RefusalKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        RefusalKind::Unreachable | RefusalKind::Remote(_) => StatusCode::BAD_GATEWAY,
    }
}

macro_rules! from_rejection {
    ($($rejection:ty),*) => {$(
        impl From<$rejection> for ApiError {
            fn from(rejection: $rejection) -> Self {
                // The text quotes the request.
                let detail = printable(&rejection.body_text()).to_string();
                Self::new(rejection.status(), detail)
            }
        }
    )*};
}

from_rejection!(FormRejection, JsonRejection, PathRejection, QueryRejection);

/// Returns the response for a path without a route.
pub(super) async fn unknown_route(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        ApiError::not_found(format!("there is no route {}", uri.path())).into_response()
    } else {
        toaster::not_found()
    }
}

/// Returns the response for a route that does not support the method.
pub(super) async fn unsupported_method(method: Method, uri: Uri) -> ApiError {
    let detail = format!("{} does not support {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use config::ToolchainName;
    use store::toolchains::ToolchainRefusal;

    use super::*;

    #[test]
    fn a_refusal_of_the_store_has_the_status_of_its_kind() {
        let name: ToolchainName = "default".parse().unwrap();
        let missing: StoreError = ToolchainRefusal::NotFound(name).into();
        assert_eq!(ApiError::from(missing).status, StatusCode::NOT_FOUND);
        let empty: StoreError = ToolchainRefusal::Empty("default".into()).into();
        assert_eq!(ApiError::from(empty).status, StatusCode::CONFLICT);
    }
}
