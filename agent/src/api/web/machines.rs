//! The pages of machines, and their actions. Each action first shows what it would do.

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Form, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::machines::{ChangeReport, DiffQuery, RevisionPruneRequest};
use config::{MachineName, Revision};
use jiff::Timestamp;
use serde::Deserialize;
use store::MachineChange;
use web::{Confirm, DiffPage, MachinePage, Machines, Section, Viewer};

use super::super::auth::Caller;
use super::super::error::ApiError;
use super::super::machines;
use super::super::sign_in::see_other;
use super::answer::{error_page, page};
use super::frame;
use state::AgentState;

/// The fields of the form of an action.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ChangeForm {
    revision: Option<Revision>,
    keep: Option<usize>,
    #[serde(default)]
    confirm: String,
}

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let shown = machines::describe_all(&agent).await.and_then(|machines| {
        let frame = frame(&agent, viewer.clone(), Section::Machines, "Machines");
        page(&headers, &Machines { frame, machines })
    });
    shown.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<MachineName>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = machine(&agent, viewer.clone(), name).await;
    let answer = shown.and_then(|shown| page(&headers, &shown));
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn machine(
    agent: &Arc<AgentState>,
    viewer: Viewer,
    name: Result<Path<MachineName>, PathRejection>,
) -> Result<MachinePage, ApiError> {
    let Path(name) = name?;
    let machine = machines::describe_one(agent, &name).await?;
    let status = agent.status();
    let readiness = status.into_iter().flat_map(|it| it.machines);
    Ok(MachinePage {
        frame: frame(agent, viewer, Section::Machines, name.to_string()),
        machine,
        readiness: readiness.filter(|it| it.machine == name).collect(),
        now: Timestamp::now(),
    })
}

pub(super) async fn diff(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    name: Result<Path<MachineName>, PathRejection>,
    query: Result<Query<DiffQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let compared = async {
        let (Path(name), Query(query)) = (name?, query?);
        let diff = machines::compare(&agent, &name, query).await?;
        let title = format!("{name}: {} to {}", diff.older, diff.newer);
        let frame = frame(&agent, viewer.clone(), Section::Machines, title);
        page(&headers, &DiffPage { frame, diff })
    };
    let answer: Result<_, ApiError> = compared.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Shows what an action would do, or does it if the form says that this was shown.
pub(super) async fn change(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<(MachineName, String)>, PathRejection>,
    headers: HeaderMap,
    form: Result<Form<ChangeForm>, FormRejection>,
) -> Response {
    let changed = async {
        let (Path((name, action)), Form(form)) = (path?, form?);
        if !viewer.may_administer() {
            return Err(ApiError::forbidden("this action needs the scope admin"));
        }
        let dry_run = form.confirm.is_empty();
        let report = carry_out(&agent, &caller, &name, &action, &form, dry_run).await?;
        let back = format!("/machines/{name}");
        if !dry_run {
            return Ok(see_other(&back));
        }
        let confirm = confirm(&agent, viewer.clone(), &back, &action, &form, report);
        page(&headers, &confirm)
    };
    let answer: Result<_, ApiError> = changed.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

async fn carry_out(
    agent: &AgentState,
    caller: &Caller,
    name: &MachineName,
    action: &str,
    form: &ChangeForm,
    dry_run: bool,
) -> Result<ChangeReport, ApiError> {
    let revision = || {
        let missing = || ApiError::bad_request("the field `revision` is missing");
        form.revision.ok_or_else(missing)
    };
    let change = match action {
        "rollback" => MachineChange::RollBack(form.revision),
        "pin" => MachineChange::Pin(revision()?),
        "unpin" => MachineChange::Unpin(revision()?),
        "promote" => MachineChange::Promote,
        "reject" => MachineChange::Reject,
        "prune" => {
            let keep = form.keep.unwrap_or(2);
            let request = RevisionPruneRequest { keep, dry_run };
            return machines::prune_machine(agent, caller, name, request).await;
        }
        _ => {
            return Err(ApiError::not_found(format!(
                "machines have no action {action}"
            )));
        }
    };
    machines::change_machine(agent, caller, name, change, dry_run).await
}

fn confirm(
    agent: &AgentState,
    viewer: Viewer,
    back: &str,
    action: &str,
    form: &ChangeForm,
    report: ChangeReport,
) -> Confirm {
    let (title, button) = match action {
        "rollback" => ("Change the current revision", "Make current"),
        "pin" => ("Pin a revision", "Pin"),
        "unpin" => ("Unpin a revision", "Unpin"),
        "promote" => ("Promote the revision on trial", "Promote"),
        "reject" => ("End the trial", "Reject"),
        _ => ("Prune revisions", "Prune"),
    };
    let revision = form
        .revision
        .map(|it| ("revision".to_owned(), it.to_string()));
    let keep = form.keep.map(|it| ("keep".to_owned(), it.to_string()));
    Confirm {
        frame: frame(agent, viewer, Section::Machines, title),
        steps: report.steps,
        kept: report.kept,
        action: format!("{back}/{action}"),
        fields: revision.into_iter().chain(keep).collect(),
        button: button.to_owned(),
        back: back.to_owned(),
    }
}
