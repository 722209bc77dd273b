//! Tokens. Changes of their file take effect at once.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use config::tokens::{CreatedToken, NewToken, TokenName, TokenStatus};
use token_file::{Mode, TokenFileError};
use tracing::info;

use super::auth::{Auth, Caller};
use super::error::ApiError;

impl From<TokenFileError> for ApiError {
    fn from(error: TokenFileError) -> Self {
        match error {
            TokenFileError::Missing(_) => Self::not_found(error.to_string()),
            TokenFileError::Exists(_) | TokenFileError::Full | TokenFileError::Content { .. } => {
                Self::conflict(error.to_string())
            }
            error @ TokenFileError::File { .. } => Self::internal(&error),
        }
    }
}

pub(super) async fn list(Extension(auth): Extension<Arc<Auth>>) -> Json<Vec<TokenStatus>> {
    Json(auth.tokens().await)
}

/// Creates a token. Only this answer has its secret.
pub(super) async fn add(
    Extension(auth): Extension<Arc<Auth>>,
    Extension(caller): Extension<Caller>,
    new: Result<Json<NewToken>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(new) = new?;
    let created = create(&auth, &caller, new).await?;
    let uncached = [(header::CACHE_CONTROL, "no-store")];
    Ok((StatusCode::CREATED, uncached, Json(created)).into_response())
}

pub(super) async fn remove(
    Extension(auth): Extension<Arc<Auth>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<TokenName>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = name?;
    revoke(&auth, &caller, &name, Mode::Change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Creates a token in the name of a caller.
pub(super) async fn create(
    auth: &Auth,
    caller: &Caller,
    new: NewToken,
) -> Result<CreatedToken, ApiError> {
    let created = auth.add_token(new).await?;
    let (token, scope) = (&created.name, created.scope);
    info!(%token, %scope, by = %caller.submitter, "created a token");
    Ok(created)
}

/// Removes a token in the name of a caller.
pub(super) async fn revoke(
    auth: &Auth,
    caller: &Caller,
    name: &TokenName,
    mode: Mode,
) -> Result<(), ApiError> {
    auth.remove_token(name, mode).await?;
    if mode == Mode::Change {
        info!(token = %name, by = %caller.submitter, "removed a token");
    }
    Ok(())
}
