//! Machines: their revisions and images, and the changes that the command line makes as well.

mod describe;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::response::Json;
use config::MachineName;
use config::layout::Entry;
use config::machines::{
    ChangeReport, DiffQuery, Machine, MachineSummary, PinRequest, RevisionDiff,
    RevisionPruneRequest, RollbackRequest, TrialRequest,
};
use state::{AgentState, ImageFacts};
use store::prune::{self, PrunePolicy, Use};
use store::{Located, MachineChange, MachineRefusal, MachineUsage, StoreError, Volume};
use sys::blocking::blocking;
use tokio::time::timeout;
use tracing::info;

use super::auth::Caller;
use super::error::ApiError;
use describe::MachineFacts;

/// The time that a request waits until the space of a machine is counted. The count continues then,
/// and a later request has it.
const COUNT_LIMIT: Duration = Duration::from_millis(700);

pub(super) async fn list(
    State(agent): State<Arc<AgentState>>,
) -> Result<Json<Vec<MachineSummary>>, ApiError> {
    Ok(Json(describe_all(&agent).await?))
}

/// Returns the summaries of all machines.
pub(super) async fn describe_all(agent: &AgentState) -> Result<Vec<MachineSummary>, ApiError> {
    let volumes = agent.volumes.clone();
    let summaries = blocking(move || -> Result<Vec<_>, StoreError> {
        let inventory = volumes.inventory()?;
        let machines = inventory.machines.values();
        let summaries = machines.filter_map(|Located { volume, view }| {
            let volume = volumes.get(*volume)?;
            let fault = volume.manifest_fault(view);
            Some(describe::summary(view, volume.path(), fault.as_deref()))
        });
        Ok(summaries.collect())
    });
    Ok(summaries.await?)
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<MachineName>, PathRejection>,
) -> Result<Json<Machine>, ApiError> {
    let Path(name) = name?;
    Ok(Json(describe_one(&agent, &name).await?))
}

/// Returns a machine with its revisions and images.
pub(super) async fn describe_one(
    agent: &Arc<AgentState>,
    name: &MachineName,
) -> Result<Machine, ApiError> {
    let (volume, located) = locate(agent, name).await?;
    let builds = agent.records.counts_by_revision(name).await?;
    let usage = usage(agent, &volume, &located).await;
    let machine = blocking(move || {
        let view = &located.view;
        let notes = view.notes.iter();
        let notes = notes.filter_map(|it| Some((*it, volume.note(&view.name, *it)?)));
        let facts = MachineFacts {
            notes: notes.collect(),
            usage,
            builds,
            checkpoints: checkpoints(&volume, &located),
        };
        let fault = volume.manifest_fault(view);
        describe::machine(view, volume.path(), fault.as_deref(), &facts)
    });
    Ok(machine.await)
}

/// Returns the memory in the checkpoints of a machine's images.
fn checkpoints(volume: &Volume, located: &Located) -> BTreeMap<config::ToolchainName, u64> {
    let images = located.view.images.iter().filter(|it| it.complete);
    let checkpoints = images.filter_map(|image| {
        let entry = Entry::Image(image.toolchain.clone());
        let facts = ImageFacts::read(&volume.entry(&located.view.name, &entry));
        let checkpoint = facts.checkpoint;
        checkpoint
            .exists
            .then(|| (image.toolchain.clone(), checkpoint.bytes))
    });
    checkpoints.collect()
}

/// Returns the space of a machine, if it is known or counted soon.
async fn usage(
    agent: &Arc<AgentState>,
    volume: &Volume,
    located: &Located,
) -> Option<MachineUsage> {
    if let Some(known) = agent.machine_sizes.known(&located.view) {
        return known;
    }
    let (counting, volume, view) = (Arc::clone(agent), volume.clone(), located.view.clone());
    let counted = tokio::spawn(blocking(move || {
        counting.machine_sizes.count(&volume, &view);
    }));
    // The count continues if this request does not wait for its end.
    let _ = timeout(COUNT_LIMIT, counted).await;
    agent.machine_sizes.known(&located.view).flatten()
}

async fn locate(agent: &AgentState, name: &MachineName) -> Result<(Volume, Located), ApiError> {
    let (volumes, machine) = (agent.volumes.clone(), name.clone());
    let found = blocking(move || {
        let located = volumes.of_machine(&machine)?;
        let found = located.and_then(|it| Some((volumes.get(it.volume)?.clone(), it)));
        found.ok_or_else(|| StoreError::from(MachineRefusal::NotFound(machine)))
    });
    Ok(found.await?)
}

pub(super) async fn diff(
    State(agent): State<Arc<AgentState>>,
    name: Result<Path<MachineName>, PathRejection>,
    query: Result<Query<DiffQuery>, QueryRejection>,
) -> Result<Json<RevisionDiff>, ApiError> {
    let (Path(name), Query(query)) = (name?, query?);
    Ok(Json(compare(&agent, &name, query).await?))
}

/// Returns the differences between two revisions.
pub(super) async fn compare(
    agent: &AgentState,
    name: &MachineName,
    DiffQuery { from, to }: DiffQuery,
) -> Result<RevisionDiff, ApiError> {
    let (volume, _) = locate(agent, name).await?;
    let machine = name.clone();
    let differences = blocking(move || volume.diff(&machine, from, to)).await?;
    Ok(describe::diff(name, (from, to), differences))
}

pub(super) async fn roll_back(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<RollbackRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let change = MachineChange::RollBack(request.revision);
    report(change_machine(&agent, &caller, &name, change, request.dry_run).await)
}

pub(super) async fn pin(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<PinRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let change = MachineChange::Pin(request.revision);
    report(change_machine(&agent, &caller, &name, change, request.dry_run).await)
}

pub(super) async fn unpin(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<PinRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let change = MachineChange::Unpin(request.revision);
    report(change_machine(&agent, &caller, &name, change, request.dry_run).await)
}

pub(super) async fn promote(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<TrialRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let change = MachineChange::Promote;
    report(change_machine(&agent, &caller, &name, change, request.dry_run).await)
}

pub(super) async fn reject(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<TrialRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    let change = MachineChange::Reject;
    report(change_machine(&agent, &caller, &name, change, request.dry_run).await)
}

fn report(report: Result<ChangeReport, ApiError>) -> Result<Json<ChangeReport>, ApiError> {
    report.map(Json)
}

/// Carries a change of a machine out, or says what it would do.
pub(super) async fn change_machine(
    agent: &AgentState,
    caller: &Caller,
    name: &MachineName,
    change: MachineChange,
    dry_run: bool,
) -> Result<ChangeReport, ApiError> {
    let (volume, _) = locate(agent, name).await?;
    let (machine, by) = (name.clone(), caller.submitter.to_string());
    let step = blocking(move || -> Result<String, StoreError> {
        let step = volume.plan_change(&machine, change)?;
        if dry_run {
            return Ok(step.plan(&machine));
        }
        let done = volume.execute_step(&machine, &step, &by)?;
        Ok(step.report(done))
    });
    let step = step.await?;
    if !dry_run {
        info!(machine = %name, by = %caller.submitter, step, "changed a machine");
        agent.stirred.notify_one();
    }
    Ok(ChangeReport {
        dry_run,
        steps: vec![step],
        kept: Vec::new(),
    })
}

pub(super) async fn prune(
    State(agent): State<Arc<AgentState>>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<MachineName>, PathRejection>,
    request: Result<Json<RevisionPruneRequest>, JsonRejection>,
) -> Result<Json<ChangeReport>, ApiError> {
    let (Path(name), Json(request)) = (name?, request?);
    report(prune_machine(&agent, &caller, &name, request).await)
}

/// Deletes the old revisions of a machine, or says which ones it would delete.
pub(super) async fn prune_machine(
    agent: &AgentState,
    caller: &Caller,
    name: &MachineName,
    RevisionPruneRequest { keep, dry_run }: RevisionPruneRequest,
) -> Result<ChangeReport, ApiError> {
    let (volume, located) = locate(agent, name).await?;
    let policy = PrunePolicy {
        keep,
        created_before: None,
        free_target: None,
    };
    let report = blocking(move || -> Result<ChangeReport, StoreError> {
        let views = [located.view];
        let retained = views.iter().flat_map(|it| prune::retained(it, &policy));
        let mut kept: Vec<String> = retained
            .map(|(revision, used)| match used {
                Use::Origin => format!("revision {revision} stays: an image or a build uses it"),
                Use::Read => format!("revision {revision} stays: a process reads it"),
            })
            .collect();
        let steps = if dry_run {
            let planned = prune::plan(&views, &policy).into_iter();
            planned
                .map(|(machine, it)| format!("delete revision {it} of {machine}"))
                .collect()
        } else {
            let pruned = volume.prune(&views, &policy)?;
            let failed = pruned.failed.iter();
            kept.extend(failed.map(|(_, revision, error)| {
                let error = sys::error_report::chain(error);
                format!("revision {revision} stays: {error}")
            }));
            let deleted = pruned.deleted.into_iter();
            deleted
                .map(|(_, revision)| format!("deleted revision {revision}"))
                .collect()
        };
        Ok(ChangeReport {
            dry_run,
            steps,
            kept,
        })
    });
    let report = report.await?;
    for step in report.steps.iter().filter(|_| !dry_run) {
        info!(machine = %name, by = %caller.submitter, step, "changed a machine");
    }
    Ok(report)
}
