//! Notifications.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Json;
use config::NotifyName;
use config::notify::{NotifyStatus, NotifyTest};

use super::error::ApiError;
use crate::triggers::notifications;
use state::AgentState;

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<NotifyStatus>>, ApiError> {
    Ok(Json(notifications::describe(&agent).await?))
}

/// Tries a rule, and returns the answer of its recipient.
pub(super) async fn test(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<NotifyName>, PathRejection>,
) -> Result<Json<NotifyTest>, ApiError> {
    let Path(name) = name?;
    let settings = agent.settings();
    let mut rules = settings.notify.iter();
    let rules = rules.find(|rules| rules.name == name).ok_or_else(|| {
        ApiError::not_found(format!(
            "there is no rule {name} for notifications; [[notify]] in the settings adds one, and a restart reads it"
        ))
    })?;
    Ok(Json(notifications::test(&agent, rules).await))
}
