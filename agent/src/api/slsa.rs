//! The check against the SLSA build track.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use config::slsa::Requirement;

use super::error::ApiError;
use crate::housekeeping::slsa;
use state::AgentState;

pub(super) async fn check(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<Requirement>>, ApiError> {
    Ok(Json(slsa::examine(&slsa::inspect(&agent).await?)))
}
