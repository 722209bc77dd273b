//! Requests of a doctor.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::Json;
use config::doctor::{Name, Repaired, Report};

use super::problem::Refused;
use crate::doctor;
use crate::host::Host;

pub(super) async fn examine(State(host): State<Arc<Host>>) -> Result<Json<Report>, Refused> {
    let cleaning = doctor::cleaning(&host).await;
    let found = doctor::examine(&doctor::look(&host).await?).into_iter();
    Ok(Json(Report {
        findings: found.map(|found| found.finding).collect(),
        cleaning,
    }))
}

pub(super) async fn repair(
    State(host): State<Arc<Host>>,
    wanted: Result<Json<BTreeSet<Name>>, JsonRejection>,
) -> Result<Json<Repaired>, Refused> {
    let Json(wanted) = wanted?;
    Ok(Json(doctor::repair(&host, &wanted).await?))
}
