//! The record of an attempt that has ended. It is stored again and again until that succeeds:
//! until then the build counts as running, and its wait reason and the notices say why.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use config::builds::Build;
use config::printable;
use jiff::Timestamp;
use records::RecordsError;
use tokio::time::sleep;
use tracing::{Instrument, error, info, info_span, warn};

use super::conclude::{Rules, conclude};
use super::{Verdict, provenance};
use state::{AgentState, BuildJob};

/// The delay before the first repetition; doubled after each failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// Records the result of an attempt. Returns when the record is stored, or when the agent
/// stops: then the next one settles the build.
pub(super) async fn record(agent: &AgentState, build: Build, verdict: Verdict) {
    if let Some(mut build) = concluded(agent, build, verdict) {
        store(agent, &mut build).await;
    }
}

/// Records the result of an attempt that an earlier agent made. What cannot be stored at once
/// is stored by a task, with the build among the jobs, so that the agent starts meanwhile.
pub(super) async fn record_earlier(agent: &Arc<AgentState>, build: Build, verdict: Verdict) {
    let Some(mut build) = concluded(agent, build, verdict) else {
        return;
    };
    let Err(failure) = try_store(agent, &mut build).await else {
        return log_stored(&build);
    };
    let id = build.id;
    let mut job = BuildJob::new(&build, agent.stopping.child_token());
    job.is_concluded = true;
    agent.jobs.with(|jobs| jobs.builds.insert(id, job));
    announce(agent, &build, &failure);
    let task_agent = Arc::clone(agent);
    let task = async move {
        store(&task_agent, &mut build).await;
        task_agent.jobs.with(|jobs| jobs.builds.remove(&id));
        task_agent.wake.notify_one();
    };
    agent.tasks.spawn(task.instrument(info_span!("build", %id)));
}

/// Returns the record after an attempt; `None` if the build had ended before.
fn concluded(agent: &AgentState, build: Build, verdict: Verdict) -> Option<Build> {
    let rules = Rules::from(&agent.settings().builds);
    let id = build.id;
    conclude(build, verdict, &rules, Timestamp::now())
        .inspect_err(|error| error!(build = %id, %error, "cannot conclude a build"))
        .ok()
}

/// Stores a record, with growing delays after failures. Freed space ends a delay.
async fn store(agent: &AgentState, build: &mut Build) {
    let mut delay = RETRY_DELAY;
    while let Err(failure) = try_store(agent, build).await {
        if let StoreFailure::Record(RecordsError::Conflict(_)) = failure {
            let error = &failure as &dyn Error;
            error!(build = %build.id, error, "the outcome of an attempt is dropped: its build has another");
            return forget(agent, build);
        }
        announce(agent, build, &failure);
        tokio::select! {
            () = agent.stopping.cancelled() => {
                return warn!(build = %build.id, "the outcome is not stored; the next agent settles the build");
            }
            () = agent.space_freed.notified() => {}
            () = sleep(delay) => {}
        }
        delay = (2 * delay).min(RETRY_DELAY_MAX);
    }
    forget(agent, build);
    log_stored(build);
}

/// Removes a build from those whose outcome is not stored.
fn forget(agent: &AgentState, build: &Build) {
    let unstored = agent.jobs.with(|jobs| jobs.unstored.remove(&build.id));
    if unstored.is_some() {
        agent.wake.notify_one();
    }
}

/// Stores the provenance, then the record that says that it is there.
async fn try_store(agent: &AgentState, build: &mut Build) -> Result<(), StoreFailure> {
    if let Err(error) = provenance::write(agent, build).await {
        if sys::error_report::is_full(error.kind()) {
            return Err(StoreFailure::Provenance(error));
        }
        // A missing artifact, for example, does not come back.
        let error = &error as &dyn Error;
        error!(build = %build.id, error, "cannot write the provenance of a build");
    }
    Ok(agent.records.save(build).await?)
}

/// A reason why an outcome is not stored.
#[derive(Debug, thiserror::Error)]
enum StoreFailure {
    #[error("cannot write its provenance")]
    Provenance(#[source] std::io::Error),
    #[error(transparent)]
    Record(#[from] RecordsError),
}

/// Shows that an outcome is not stored, in the notices and as the build's wait reason.
fn announce(agent: &AgentState, build: &Build, failure: &StoreFailure) {
    let error = failure as &dyn Error;
    error!(build = %build.id, error, "cannot store the outcome of a build; trying again");
    let reason = sys::error_report::chain(error);
    agent
        .jobs
        .with(|jobs| jobs.unstored.insert(build.id, reason));
    agent.wake.notify_one();
}

fn log_stored(build: &Build) {
    if let Some(outcome) = build.outcome {
        info!(build = %build.id, %outcome, message = %printable(&build.message), "build finished");
    } else {
        info!(build = %build.id, message = %printable(&build.message), "build queued again");
    }
}
