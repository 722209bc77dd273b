//! Controllers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use config::controllers::ControllerStatus;

use super::error::ApiError;
use crate::triggers::controllers;
use state::AgentState;

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<ControllerStatus>>, ApiError> {
    Ok(Json(controllers::describe(&agent).await?))
}
