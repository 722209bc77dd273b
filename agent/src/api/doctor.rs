//! The host's doctor.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Json;
use config::doctor::{FindingKey, Repaired, Report};

use super::error::ApiError;
use crate::housekeeping::doctor;
use state::AgentState;

pub(super) async fn examine(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Report>, ApiError> {
    let cleaning = doctor::planned_deletions(&agent).await;
    let found = doctor::examine(&doctor::inspect(&agent).await?).into_iter();
    Ok(Json(Report {
        findings: found.map(|found| found.finding).collect(),
        cleaning,
    }))
}

pub(super) async fn repair(
    State(agent): State<Arc<AgentState>>,
    wanted: Result<Json<BTreeSet<FindingKey>>, JsonRejection>,
) -> Result<Json<Repaired>, ApiError> {
    let Json(wanted) = wanted?;
    Ok(Json(doctor::repair(&agent, &wanted).await?))
}
