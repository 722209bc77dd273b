//! How a build gets into the queue. What is under way already and would do the same
//! is as good as a new build, unless somebody wants one of his own.

use std::sync::Arc;

use config::ToolchainName;
use config::builds::{Build, Made, Request, State, Submitter};
use jiff::Timestamp;
use tracing::info;

use crate::blocking;
use crate::host::Host;
use crate::records::{self, RecordsError};

/// What became of a request for a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submission {
    /// It is a new build.
    New(Build),
    /// This one will do.
    Attached(Build),
}

/// Records a build, or finds one that is as good. The request has been checked, and
/// the caller holds [`Host::queue`] since.
///
/// # Errors
/// When the records cannot be read or written.
pub async fn submit(
    host: &Arc<Host>,
    request: Request,
    toolchain: ToolchainName,
    submitter: Submitter,
) -> Result<Submission, RecordsError> {
    let waits_for_nobody = request.interactive.is_none() && !request.hold;
    if request.attach
        && waits_for_nobody
        && let Some(mut build) = as_good(host, &request, &toolchain).await?
    {
        if build.state == State::Queued && build.priority < request.priority {
            build.priority = request.priority;
            host.records.save(&build).await?;
            host.wake.notify_one();
        }
        info!(build = %build.id, %submitter, "build submitted; one that does the same is under way");
        return Ok(Submission::Attached(build));
    }
    let now = Timestamp::now();
    let build = host.records.submit(request, toolchain, submitter, now);
    let build = build.await?;
    begun(host, &build);
    Ok(Submission::New(build))
}

/// Lets the reconciler see a build that was recorded.
pub(crate) fn begun(host: &Host, build: &Build) {
    info!(build = %build.id, machine = %build.machine, toolchain = %build.toolchain, submitter = %build.submitter, "build submitted");
    host.wake.notify_one();
}

/// An unfinished build that does what is asked for, with what a new one would do it.
async fn as_good(
    host: &Arc<Host>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Result<Option<Build>, RecordsError> {
    let task = records::task(&request.machine, toolchain, &request.sources);
    let same = host.records.doing(&task).await?;
    let mut same: Vec<_> = same
        .into_iter()
        .filter(|build| build.after == request.after)
        .collect();
    if same.iter().all(|build| build.state != State::Queued) && !same.is_empty() {
        let now = made_now(host, request, toolchain).await;
        same.retain(|build| is_made_from(build.made.as_ref(), now.as_ref()));
    }
    // One that waits gets what is newest when it starts.
    let waits = same.iter().position(|build| build.state == State::Queued);
    Ok((!same.is_empty()).then(|| same.swap_remove(waits.unwrap_or(0))))
}

fn is_made_from(made: Option<&Made>, now: Option<&(String, String)>) -> bool {
    made.zip(now).is_some_and(|(made, (revision, toolchain))| {
        made.revision_uuid == *revision && made.toolchain_sha256.as_str() == toolchain
    })
}

/// The revision and the toolchain that a guest would be made from now.
async fn made_now(
    host: &Arc<Host>,
    request: &Request,
    toolchain: &ToolchainName,
) -> Option<(String, String)> {
    let (host, machine, toolchain) = (Arc::clone(host), request.machine.clone(), toolchain.clone());
    blocking(move || {
        let views = host.volumes.iter().map(|volume| volume.look(&machine));
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
        let made = Made {
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
