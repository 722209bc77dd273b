//! How a build gets into the queue. What is under way already and would do the same
//! is as good as a new build, unless somebody wants one of his own.

pub(crate) mod check;

use std::sync::Arc;

use config::ToolchainName;
use config::builds::{Build, BuildInputs, Request, State, Submitter};
use jiff::Timestamp;
use tracing::info;

use crate::blocking;
use crate::records::{self, IdempotencyKey, RecordsError, Submitted};
use crate::state::AgentState;

pub use check::Unfit;

/// What became of a request for a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// It is a new build.
    New(Build),
    /// This one will do: it does the same, or was asked for under the same key.
    There(Build),
    /// The build that was asked for under its key was deleted.
    Deleted,
    /// Something else was asked for under its key.
    Other,
}

impl From<Submitted> for Submission {
    fn from(submitted: Submitted) -> Self {
        match submitted {
            Submitted::Created(build) => Self::New(*build),
            Submitted::Replayed(Some(build)) => Self::There(*build),
            Submitted::Replayed(None) => Self::Deleted,
            Submitted::KeyConflict => Self::Other,
        }
    }
}

/// Records a build, or finds one that is as good. What has a key is a build of its own,
/// so that the key always means that one. The request has been checked, and the caller
/// holds [`AgentState::queue`] since.
///
/// # Errors
/// When the records cannot be read or written.
pub async fn submit(
    agent: &Arc<AgentState>,
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
    once: Option<IdempotencyKey>,
) -> Result<Submission, RecordsError> {
    let (records, now) = (&agent.records, Timestamp::now());
    let submission = if let Some(once) = once {
        let done = records.submit_idempotent(once, request, toolchain, submitter, now);
        done.await?.into()
    } else if let Some(build) = attached(agent, &request, &toolchain).await? {
        info!(build = %build.id, %submitter, "build submitted; one that does the same is under way");
        Submission::There(build)
    } else {
        let done = records.submit(request, toolchain, submitter, now);
        Submission::New(done.await?)
    };
    if let Submission::New(build) = &submission {
        begun(agent, build);
    }
    Ok(submission)
}

/// Lets the reconciler see a build that was recorded.
pub(crate) fn begun(agent: &AgentState, build: &Build) {
    info!(build = %build.id, machine = %build.machine, toolchain = %build.toolchain, submitter = %build.submitter, "build submitted");
    agent.wake.notify_one();
}

/// The build under way that is as good, if the request allows it; as urgent, too.
pub(crate) async fn attached(
    agent: &Arc<AgentState>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<Option<Build>, RecordsError> {
    let waits_for_nobody = request.interactive.is_none() && !request.hold;
    if !request.coalesce || !waits_for_nobody {
        return Ok(None);
    }
    let mut found = as_good(agent, request, toolchain).await?;
    if let Some(build) = &mut found
        && build.state == State::Queued
        && build.priority < request.priority
    {
        build.priority = request.priority;
        agent.records.save(build).await?;
        agent.wake.notify_one();
    }
    Ok(found)
}

/// An unfinished build that does what is asked for, with what a new one would do it.
async fn as_good(
    agent: &Arc<AgentState>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<Option<Build>, RecordsError> {
    let task = records::task(&request.machine, toolchain, &request.sources);
    let same = agent.records.with_task(&task).await?;
    let mut same: Vec<_> = same
        .into_iter()
        .filter(|build| build.after == request.after)
        .collect();
    if same.iter().all(|build| build.state != State::Queued) && !same.is_empty() {
        let now = made_now(agent, request, toolchain).await;
        same.retain(|build| is_made_from(build.inputs.as_ref(), now.as_ref()));
    }
    // One that waits gets what is newest when it starts.
    let waits = same.iter().position(|build| build.state == State::Queued);
    Ok((!same.is_empty()).then(|| same.swap_remove(waits.unwrap_or(0))))
}

fn is_made_from(made: Option<&BuildInputs>, now: Option<&(String, String)>) -> bool {
    made.zip(now).is_some_and(|(made, (revision, toolchain))| {
        made.revision_uuid == *revision && made.toolchain_sha256.as_str() == toolchain
    })
}

/// The revision and the toolchain that a guest would be made from now.
async fn made_now(
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
        let views = agent.volumes.iter().map(|volume| volume.view(&machine));
        let view = views.flatten().find(store::MachineView::is_live)?;
        let made = view.image(&toolchain)?.provenance.clone()?;
        Some((made.revision_uuid, made.toolchain_id.to_string()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_runs_is_as_good_only_if_it_is_made_from_the_same() {
        let digest = "0".repeat(64);
        let made = BuildInputs {
            revision_uuid: "a".into(),
            contents_sha256: None,
            toolchain_sha256: digest.parse().unwrap(),
        };
        let now = |uuid: &str| Some((uuid.to_owned(), digest.clone()));
        assert!(is_made_from(Some(&made), now("a").as_ref()));
        assert!(!is_made_from(Some(&made), now("b").as_ref()));
        assert!(!is_made_from(None, now("a").as_ref()), "not known yet");
        assert!(!is_made_from(Some(&made), None));
    }
}
