//! Builds of projects: a project becomes an ordinary build, with its resolved content as sources.

use std::sync::Arc;

use config::builds::{Request, Submitter, Target};
use config::projects::{BitbakeTarget, Project, ProjectBuild, ProjectDocument};
use config::schedule::ScheduledProject;
use config::task::Source;
use config::{MachineName, ToolchainName};
use records::RecordsError;
use sys::blocking::blocking;
use tracing::info;
use yocto::{PrepareError, Prepared, SourceStore};

use super::submission::{self, InvalidRequest, Submission, check};
use state::AgentState;

/// The toolchain of projects.
const TOOLCHAIN: &str = "bitbake";

/// A failure to build a project.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectBuildError {
    /// The project cannot be resolved.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The build is refused.
    #[error(transparent)]
    Invalid(#[from] InvalidRequest),
    /// The records cannot be used.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Resolves a project, and submits its build unless only that was asked for.
///
/// # Errors
/// The project cannot be resolved, or the build is refused. Nothing is submitted then.
pub(crate) async fn build(
    agent: &Arc<AgentState>,
    project: Project,
    build: ProjectBuild,
    submitter: Submitter,
) -> Result<(ProjectDocument, Option<Submission>), ProjectBuildError> {
    // A fault of the request is found before repositories are read, which takes minutes.
    let mut request = match (&build.host_machine, &project.host_machine) {
        (Some(machine), _) | (None, Some(machine)) => request_of(&build, machine.clone()),
        (None, None) => {
            return Err(InvalidRequest::Malformed(format!(
                "the project {} names no machine of this host, and neither does the request; `buildhost list` lists all machines",
                project.name
            ))
            .into());
        }
    };
    let toolchain = check::resolve_toolchain(agent, &request).await?;
    let (worker, name) = (Arc::clone(agent), project.name.clone());
    let (dry_run, with_sources) = (build.dry_run, !build.dry_run);
    let prepared = blocking(move || prepare(&worker, &project, &build, with_sources)).await?;
    let document = prepared.document;
    if dry_run {
        return Ok((document, None));
    }
    request.target = target_of(&document.targets);
    request.project = Some(name.clone());
    request.sources = prepared.sources;
    let submission = submit(agent, request, toolchain, submitter).await?;
    if let Submission::Created(build) | Submission::Existing(build) = &submission {
        let repositories = document.repositories.len();
        info!(project = %name, build = %build.id, repositories, "resolved a project");
    }
    Ok((document, Some(submission)))
}

/// Resolves the project of a schedule. Returns the request of a run: that of the schedule with the
/// sources of the commits that the branches have now. Takes minutes if there is much to fetch.
///
/// # Errors
/// The project does not exist or cannot be resolved.
pub(crate) async fn resolve_scheduled(
    agent: &Arc<AgentState>,
    scheduled: &ScheduledProject,
    request: &Request,
) -> Result<Request, PrepareError> {
    let build = ProjectBuild {
        targets: scheduled.targets.clone(),
        at: scheduled.at.clone(),
        ..ProjectBuild::default()
    };
    let (worker, name) = (Arc::clone(agent), scheduled.name.clone());
    let prepared = blocking(move || {
        let project = worker.catalog.project(&name)?;
        prepare(&worker, &project, &build, true)
    })
    .await?;
    Ok(Request {
        target: target_of(&prepared.document.targets),
        project: Some(scheduled.name.clone()),
        sources: prepared.sources,
        ..request.clone()
    })
}

/// Resolves a project, and stores its sources if `with_sources` is set. Blocks.
fn prepare(
    agent: &AgentState,
    project: &Project,
    build: &ProjectBuild,
    with_sources: bool,
) -> Result<Prepared, PrepareError> {
    let directory = agent.paths.sources();
    let store = SourceStore {
        directory: &directory,
        bytes_max: agent.settings().builds.sources_bytes_max,
    };
    let store = with_sources.then_some(store);
    yocto::prepare(&agent.catalog, &agent.mirrors, project, build, store)
}

async fn submit(
    agent: &Arc<AgentState>,
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
) -> Result<Submission, ProjectBuildError> {
    check::check_form(&request)?;
    // Under the lock no source is deleted before the record that names it.
    let _queue = agent.queue.lock().await;
    check::check_sources(agent, &request).await?;
    Ok(submission::submit(agent, request, toolchain, submitter, None).await?)
}

/// Returns the request for a project's build, without its sources.
fn request_of(build: &ProjectBuild, machine: MachineName) -> Request {
    Request {
        machine,
        toolchain: build.toolchain.clone().or_else(|| TOOLCHAIN.parse().ok()),
        sources: Vec::<Source>::new(),
        interactive: None,
        hold: false,
        commands: None,
        target: None,
        priority: build.priority,
        resources: config::builds::Resources::default(),
        after: Vec::new(),
        secrets: Vec::new(),
        submitter: None,
        coalesce: build.coalesce,
        project: None,
        controller: None,
    }
}

/// Returns the name of a build's subject: all targets, or the first one if the list is too long.
fn target_of(targets: &[BitbakeTarget]) -> Option<Target> {
    let names: Vec<_> = targets.iter().map(BitbakeTarget::as_str).collect();
    let first = || names.first()?.parse().ok();
    names.join(" ").parse().ok().or_else(first)
}
