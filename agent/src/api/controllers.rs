//! Controllers.

use std::sync::Arc;

use ::controllers::farm::FarmError;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::response::Json;
use config::ControllerName;
use config::controllers::{ControllerStatus, Enrolment, ForgetRequest, Forgotten};
use tracing::info;

use super::auth::Caller;
use super::error::ApiError;
use crate::triggers::controllers;
use crate::triggers::controllers::farm::EnrolError;
use crate::triggers::controllers::forget::ForgetError;
use state::AgentState;

/// The form of an enrolment, for callers who have sent something else.
const FORM: &str = "an enrolment is a JSON object with `token`, the text that \
                    `buildhost-farm invite NAME` has printed";

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> Self {
        match &error {
            EnrolError::Unknown(_) => Self::not_found(error.to_string()),
            EnrolError::Farm(FarmError::Unavailable { .. }) => Self::bad_gateway(error.to_string()),
            EnrolError::Farm(_) => Self::conflict(error.to_string()),
            EnrolError::Key(_) => Self::internal(&error),
        }
    }
}

impl From<ForgetError> for ApiError {
    fn from(error: ForgetError) -> Self {
        match &error {
            ForgetError::Unknown(_) => Self::not_found(error.to_string()),
            ForgetError::Configured(_) | ForgetError::Unfinished(_) => {
                Self::conflict(error.to_string())
            }
            ForgetError::Records(_) => Self::internal(&error),
        }
    }
}

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<ControllerStatus>>, ApiError> {
    Ok(Json(controllers::describe(&agent).await?))
}

/// Enrols this host in a farm, and returns the state of that controller.
pub(super) async fn enrol(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<ControllerName>, PathRejection>,
    enrolment: Result<Json<Enrolment>, JsonRejection>,
) -> Result<Json<ControllerStatus>, ApiError> {
    let Path(name) = name?;
    // The rejection of a message can show a part of it, and this one has a secret.
    let Ok(Json(enrolment)) = enrolment else {
        return Err(ApiError::bad_request(FORM));
    };
    controllers::farm::enrol(&agent, &name, &enrolment.token).await?;
    let mut all = controllers::describe(&agent).await?.into_iter();
    let found = all.find(|it| it.name == name);
    found
        .map(Json)
        .ok_or_else(|| EnrolError::Unknown(name).into())
}

/// Gives up the open leases of a controller that the settings do not name.
pub(super) async fn forget(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<ControllerName>, PathRejection>,
    request: Result<Json<ForgetRequest>, JsonRejection>,
) -> Result<Json<Forgotten>, ApiError> {
    let (Path(name), Json(ForgetRequest { dry_run })) = (name?, request?);
    let forgotten = controllers::forget::forget(&agent, &name, dry_run).await?;
    if !dry_run {
        info!(controller = %name, by = %caller.submitter, "the leases of a controller were given up");
    }
    Ok(Json(forgotten))
}
