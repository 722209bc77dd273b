//! The pages of the host and of its doctor, and their actions.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{FormRejection, PathRejection};
use axum::extract::{Extension, Form, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::ScheduleName;
use config::builds::ListQuery;
use config::queue::Drain;
use config::schedule::{Page, SCHEDULES_MAX, Schedule};
use jiff::Timestamp;
use serde::Deserialize;
use sys::blocking::blocking;
use tracing::info;
use web::{Confirm, DoctorPage, HostPage, ProjectRow, Section, Viewer, finding_field};

use super::super::auth::Caller;
use super::super::error::ApiError;
use super::super::sign_in::see_other;
use super::super::{caches, doctor as doctor_api, queue, schedules};
use super::answer::{error_page, page};
use super::frame;
use crate::housekeeping::doctor;
use crate::triggers::controllers;
use crate::triggers::schedule::with_next;
use state::AgentState;

/// The number of projects on the page.
const PROJECTS_MAX: usize = 100;
/// The number of builds of each.
const PROJECT_BUILDS: u32 = 5;

/// The fields of the form that drains the host.
#[derive(Debug, Default, Deserialize)]
pub(super) struct DrainForm {
    #[serde(default)]
    reason: String,
}

/// The fields of the form that repairs a finding.
#[derive(Debug, Default, Deserialize)]
pub(super) struct RepairForm {
    #[serde(default)]
    finding: String,
    #[serde(default)]
    confirm: String,
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let shown = host(&agent, viewer.clone()).await;
    let answer = shown.and_then(|shown| page(&headers, &shown));
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn host(agent: &Arc<AgentState>, viewer: Viewer) -> Result<HostPage, ApiError> {
    let now = Timestamp::now();
    let all = Page {
        from: None,
        count: Some(SCHEDULES_MAX),
    };
    let schedules = agent.records.schedules(all).await?.into_iter();
    let schedules: Vec<_> = schedules.map(|it| with_next(it, now)).collect();
    let projects = projects(agent, &schedules).await?;
    Ok(HostPage {
        frame: frame(agent, viewer, Section::Host, "Host"),
        drained: agent.drained(),
        status: agent.status(),
        schedules,
        projects,
        caches: caches::describe(agent).await?,
        controllers: controllers::describe(agent).await?,
        now,
    })
}

/// Returns the projects with their last builds and next runs.
async fn projects(agent: &AgentState, schedules: &[Schedule]) -> Result<Vec<ProjectRow>, ApiError> {
    let catalog = agent.catalog.clone();
    let mut projects = blocking(move || catalog.projects()).await?;
    projects.truncate(PROJECTS_MAX);
    let mut rows = Vec::new();
    for project in projects {
        let of_it = ListQuery {
            project: Some(project.name.clone()),
            count: Some(PROJECT_BUILDS),
            ..ListQuery::default()
        };
        let runs = schedules.iter().filter(|it| {
            let of_schedule = it.project.as_ref();
            of_schedule.is_some_and(|it| it.name == project.name)
        });
        rows.push(ProjectRow {
            last: agent.records.list(of_it).await?,
            next: runs.filter_map(|it| it.next).min(),
            project,
        });
    }
    Ok(rows)
}

pub(super) async fn drain(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    form: Result<Form<DrainForm>, FormRejection>,
) -> Response {
    let drained = async {
        let Form(DrainForm { reason }) = form?;
        require_admin(&viewer)?;
        let _ = queue::drain(State(Arc::clone(&agent)), Ok(Json(Drain { reason }))).await?;
        Ok(see_other("/host"))
    };
    let answer: Result<_, ApiError> = drained.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

pub(super) async fn undrain(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
) -> Response {
    let undrained = async {
        require_admin(&viewer)?;
        let _ = queue::undrain(State(Arc::clone(&agent))).await?;
        Ok(see_other("/host"))
    };
    let answer: Result<_, ApiError> = undrained.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Runs a schedule at once, and leads to its build.
pub(super) async fn run_schedule(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<ScheduleName>, PathRejection>,
) -> Response {
    let (_, Json(build)) = match schedules::run(State(Arc::clone(&agent)), name).await {
        Ok(run) => run,
        Err(error) => return error_page(&agent, viewer, error),
    };
    see_other(&format!("/builds/{}", build.id))
}

pub(super) async fn examine(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let examined = async {
        let Json(report) = doctor_api::examine(State(Arc::clone(&agent))).await?;
        let frame = frame(&agent, viewer.clone(), Section::Host, "Doctor");
        page(&headers, &DoctorPage { frame, report })
    };
    let answer: Result<_, ApiError> = examined.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Shows the steps of a repair, or takes them if the form says that they were shown.
pub(super) async fn repair(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    form: Result<Form<RepairForm>, FormRejection>,
) -> Response {
    let repaired = async {
        let Form(form) = form?;
        require_admin(&viewer)?;
        let Json(report) = doctor_api::examine(State(Arc::clone(&agent))).await?;
        let mut findings = report.findings.into_iter();
        let finding = findings.find(|it| finding_field(it) == form.finding);
        let gone = || ApiError::conflict("the finding does not exist any more");
        let finding = finding.ok_or_else(gone)?;
        let mut shown = Confirm {
            frame: frame(&agent, viewer.clone(), Section::Host, "Repair"),
            steps: finding.repair.clone(),
            kept: Vec::new(),
            action: "/host/doctor/repair".to_owned(),
            fields: vec![("finding".to_owned(), form.finding)],
            button: "Repair".to_owned(),
            back: "/host/doctor".to_owned(),
        };
        if form.confirm.is_empty() {
            return page(&headers, &shown);
        }
        let wanted = BTreeSet::from([finding.key()]);
        let done = doctor::repair(&agent, &wanted).await?;
        info!(by = %caller.submitter, finding = shown.fields[0].1, "repaired a finding");
        if done.failed.is_empty() {
            return Ok(see_other("/host/doctor"));
        }
        shown.steps = Vec::new();
        shown.kept = done.failed;
        page(&headers, &shown)
    };
    let answer: Result<_, ApiError> = repaired.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

pub(super) fn require_admin(viewer: &Viewer) -> Result<(), ApiError> {
    if viewer.may_administer() {
        Ok(())
    } else {
        Err(ApiError::forbidden("this action needs the scope admin"))
    }
}
