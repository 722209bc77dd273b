//! Secrets.

use std::error::Error;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::Json;
use config::SecretName;
use config::secrets::{NewSecret, Secret};
use config::task::Outcome;
use config::tokens::Scope;
use jiff::Timestamp;
use secrets::SecretsError;
use sys::blocking::blocking;
use tracing::{info, warn};

use super::auth::Caller;
use super::error::ApiError;
use jobs::end_without_start;
use state::AgentState;

/// The form of a secret, for callers who have sent something else.
const FORM: &str = "a secret is a JSON object with `value`, 8 bytes to 16 KiB in base64, and \
                    optionally `for`, a list of submitters, and `replace`";

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Missing(_) => Self::not_found(error.to_string()),
            SecretsError::Forbidden { .. } => Self::forbidden(error.to_string()),
            SecretsError::Exists(_)
            | SecretsError::Full
            | SecretsError::Permissions { .. }
            | SecretsError::Content { .. } => Self::conflict(error.to_string()),
            error @ SecretsError::File { .. } => Self::internal(&error),
        }
    }
}

/// Lists the secrets: all for an administrator, otherwise those that the caller's builds may have.
pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<Secret>>, ApiError> {
    let store = agent.secrets.clone();
    let mut all = blocking(move || store.list()).await?;
    all.retain(|secret| caller.scope == Scope::Admin || secret.is_for(&caller.submitter));
    Ok(Json(all))
}

pub(super) async fn add(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<SecretName>, PathRejection>,
    new: Result<Json<NewSecret>, JsonRejection>,
) -> Result<(StatusCode, Json<Secret>), ApiError> {
    let Path(name) = name?;
    // The rejection of a message can show a part of it.
    let Json(new) = new.map_err(|rejection| match rejection {
        JsonRejection::JsonDataError(_) => ApiError::unprocessable(FORM),
        JsonRejection::JsonSyntaxError(_) => ApiError::bad_request(FORM),
        rejection => rejection.into(),
    })?;
    let _queue = agent.queue.lock().await;
    let (store, by) = (agent.secrets.clone(), caller.submitter.clone());
    let added = blocking(move || store.add(name, new, by, Timestamp::now()));
    let (secret, is_new) = added.await?;
    info!(secret = %secret.name, by = %caller.submitter, is_new, "added a secret");
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(secret)))
}

pub(super) async fn delete(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<SecretName>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(name) = name?;
    let _queue = agent.queue.lock().await;
    let (store, deleted) = (agent.secrets.clone(), name.clone());
    if !blocking(move || store.delete(&deleted)).await? {
        return Err(SecretsError::Missing(name).into());
    }
    info!(secret = %name, by = %caller.submitter, "deleted a secret");
    end_waiting_builds(&agent, &name).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the builds that wait and would need a deleted secret. One that is missed here ends when it
/// starts.
async fn end_waiting_builds(agent: &AgentState, name: &SecretName) {
    let waiting = match agent.records.unfinished().await {
        Ok(unfinished) => unfinished,
        Err(error) => {
            let error = &error as &dyn Error;
            return warn!(error, "cannot end the builds that need a deleted secret");
        }
    };
    for build in waiting {
        if !build.secrets.contains(name) {
            continue;
        }
        let message = format!("the secret {name} was deleted while the build waited");
        let end = move |build: &mut config::builds::Build| {
            let waits = build.state == config::builds::State::Queued && build.outcome.is_none();
            waits && end_without_start(build, Outcome::Error, message.clone()).is_ok()
        };
        if let Err(error) = agent.records.change(build.id, end).await {
            let error = &error as &dyn Error;
            warn!(build = %build.id, error, "cannot end a build that needs a deleted secret");
        }
    }
    agent.wake.notify_one();
}
