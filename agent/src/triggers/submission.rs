//! Submission of builds to the queue. A request is coalesced with an equivalent unfinished
//! build, unless it asks for a build of its own.

pub(crate) mod check;

use std::sync::Arc;

use config::ToolchainName;
use config::builds::{Build, BuildInputs, Request, State, Submitter};
use jiff::Timestamp;
use records::{self, IdempotencyKey, RecordsError, Submitted};
use sys::blocking::blocking;
use tracing::info;

use state::AgentState;

pub use check::InvalidRequest;

/// The result of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// The build was created.
    Created(Build),
    /// The request was coalesced with this build, or this build was created under its key.
    Existing(Build),
    /// The build that was created under its key was deleted.
    Deleted,
    /// Its key was used for another request.
    KeyConflict,
}

impl From<Submitted> for Submission {
    fn from(submitted: Submitted) -> Self {
        match submitted {
            Submitted::Created(build) => Self::Created(*build),
            Submitted::Replayed(Some(build)) => Self::Existing(*build),
            Submitted::Replayed(None) => Self::Deleted,
            Submitted::KeyConflict => Self::KeyConflict,
        }
    }
}

/// Submits a checked request, or coalesces it with an equivalent build. A request with a key
/// always gets a build of its own. The caller has held [`AgentState::queue`] since it checked
/// the sources.
///
/// # Errors
/// The records cannot be read or written.
pub async fn submit(
    agent: &Arc<AgentState>,
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    key: Option<IdempotencyKey>,
) -> Result<Submission, RecordsError> {
    let (records, now) = (&agent.records, Timestamp::now());
    let submission = if let Some(key) = key {
        let result = records.submit_idempotent(key, request, toolchain, submitter, now);
        result.await?.into()
    } else if let Some(build) = coalesce(agent, &request, &toolchain).await? {
        info!(build = %build.id, %submitter, "coalesced a request with an equivalent build");
        Submission::Existing(build)
    } else {
        let build = records.submit(request, toolchain, submitter, now);
        Submission::Created(build.await?)
    };
    if let Submission::Created(build) = &submission {
        announce(agent, build);
    }
    Ok(submission)
}

/// Submits the task of a controller under a lease. The manifest of the task is on disk before the
/// record counts. Returns `None` if the task of this session was taken before.
///
/// # Errors
/// The manifest cannot be written, or the records cannot.
pub async fn submit_given(
    agent: &Arc<AgentState>,
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    given: GivenTask,
) -> Result<Option<Build>, GivenTaskError> {
    let _queue = agent.queue.lock().await;
    let id = agent.records.reserve_id().await?;
    let (directory, path) = (agent.paths.build(id), agent.paths.given_task(id));
    let builds = agent.paths.builds();
    blocking(move || {
        std::fs::create_dir_all(&directory)?;
        sys::file::replace(&path, &given.manifest)?;
        // The name of the directory itself.
        sys::trusted::open(builds)?.sync_all()
    })
    .await?;
    let now = Timestamp::now();
    let insert = agent
        .records
        .submit_leased(id, request, toolchain, submitter, given.terms, now);
    let build = insert.await?;
    if let Some(build) = &build {
        announce(agent, build);
    } else {
        let directory = agent.paths.build(id);
        blocking(move || std::fs::remove_dir_all(directory)).await?;
    }
    Ok(build)
}

/// The task that a controller gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenTask {
    /// Its manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// The terms of its lease, which are needed to report the result.
    pub terms: String,
}

/// A failure to submit the task of a controller.
#[derive(Debug, thiserror::Error)]
pub enum GivenTaskError {
    /// Its manifest cannot be written.
    #[error("cannot store the manifest of the task")]
    File(#[from] std::io::Error),
    /// Its record cannot be written.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Logs a new build and wakes the scheduler.
pub(crate) fn announce(agent: &AgentState, build: &Build) {
    info!(build = %build.id, machine = %build.machine, toolchain = %build.toolchain, submitter = %build.submitter, "submitted a build");
    agent.wake.notify_one();
}

/// Returns an equivalent unfinished build, if the request allows that. Raises the priority of
/// the build to that of the request.
pub(crate) async fn coalesce(
    agent: &Arc<AgentState>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<Option<Build>, RecordsError> {
    let is_own = request.interactive.is_some() || request.hold || request.commands.is_some();
    if !request.coalesce || is_own {
        return Ok(None);
    }
    let priority = request.priority;
    let is_lower = move |build: &Build| build.state == State::Queued && build.priority < priority;
    let build = match find_equivalent(agent, request, toolchain).await? {
        Some(build) if is_lower(&build) => build,
        found => return Ok(found),
    };
    let raise = move |build: &mut Build| {
        let is_raised = is_lower(build);
        build.priority = build.priority.max(priority);
        is_raised
    };
    let raised = agent.records.change(build.id, raise).await?;
    agent.wake.notify_one();
    Ok(raised.map(|(build, _)| build))
}

/// Returns an unfinished build with the task and the resources of the request, and with the revision and the
/// toolchain that a new build would get.
async fn find_equivalent(
    agent: &Arc<AgentState>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<Option<Build>, RecordsError> {
    let task = records::task(&request.machine, toolchain, &request.sources);
    let same = agent.records.with_task(&task).await?;
    let mut same: Vec<_> = same
        .into_iter()
        .filter(|build| {
            build.after == request.after
                && build.resources == request.resources
                && build.secrets == request.secrets
                && build.forked_from.is_none()
                && build.controller.is_none()
                && build.interactive.commands.is_none()
        })
        .collect();
    if same.iter().all(|build| build.state != State::Queued) && !same.is_empty() {
        let now = current_inputs(agent, request, toolchain).await;
        same.retain(|build| has_inputs(build.inputs.as_ref(), now.as_ref()));
    }
    // A queued build gets the newest inputs when it starts.
    let queued = same.iter().position(|build| build.state == State::Queued);
    Ok((!same.is_empty()).then(|| same.swap_remove(queued.unwrap_or(0))))
}

fn has_inputs(inputs: Option<&BuildInputs>, now: Option<&(String, String)>) -> bool {
    inputs
        .zip(now)
        .is_some_and(|(inputs, (revision, toolchain))| {
            inputs.revision_uuid == *revision && inputs.toolchain_sha256.as_str() == toolchain
        })
}

/// Returns the revision and the toolchain that a new build would get.
async fn current_inputs(
    agent: &Arc<AgentState>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Option<(String, String)> {
    let (agent, machine, toolchain) = (
        Arc::clone(agent),
        request.machine.clone(),
        toolchain.clone(),
    );
    blocking(move || {
        let located = agent.volumes.of_machine(&machine).ok()??;
        let provenance = located.view.image(&toolchain)?.provenance.clone()?;
        Some((
            provenance.revision_uuid,
            provenance.toolchain_id.to_string(),
        ))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_build_is_equivalent_only_with_the_same_inputs() {
        let digest = "0".repeat(64);
        let inputs = BuildInputs {
            revision_uuid: "a".into(),
            contents_sha256: None,
            toolchain_sha256: digest.parse().unwrap(),
            image_sha256: None,
            policy: None,
            repositories: Vec::new(),
        };
        let now = |uuid: &str| Some((uuid.to_owned(), digest.clone()));
        assert!(has_inputs(Some(&inputs), now("a").as_ref()));
        assert!(!has_inputs(Some(&inputs), now("b").as_ref()));
        assert!(!has_inputs(None, now("a").as_ref()), "unknown inputs");
        assert!(!has_inputs(Some(&inputs), None));
    }
}
