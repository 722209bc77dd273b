//! Everything that runs a guest. Builds, bootstraps, checkpoints and debug sessions are
//! [`runner::GuestJob`]s; holds keep the guests of failed builds.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod bootstrap;
pub mod build;
pub mod checkpoint;
pub mod debug_session;
pub mod disk_use;
pub mod fork;
pub mod hold;
pub mod image;
mod limits;
pub mod ready;
pub mod runner;
mod snapshot;

use std::sync::Arc;

use config::builds::{Build, State, TransitionError};
use config::task::Outcome;
use jiff::Timestamp;
use planner::BuildStart;
use store::Volume;
use tracing::{Instrument, info, info_span, warn};

use state::{AgentState, BuildJob};

pub use image::start_image;
pub use image::{ImageJobKind, JobEnd};
pub use runner::JobError;

/// Starts a build that is still in the queue.
pub async fn start_build(agent: &Arc<AgentState>, start: BuildStart) {
    let _queue = agent.queue.lock().await;
    let build = match agent.records.get(start.id).await {
        Ok(Some(build)) if build.state == State::Queued && agent.drained().is_none() => build,
        Ok(_) => return,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            return warn!(build = %start.id, error, "cannot start a build");
        }
    };
    let Some(volume) = agent.volumes.get(start.volume).cloned() else {
        return;
    };
    info!(build = %build.id, machine = %build.machine, "starting a build");
    spawn_build(
        agent,
        volume,
        build,
        build::AttemptKind::Fresh(Box::new(start)),
    );
}

/// Adopts a build whose guest an earlier agent started.
pub async fn adopt_build(agent: &Arc<AgentState>, build: Build) {
    info!(build = %build.id, machine = %build.machine, "adopting a build whose guest still runs");
    let found = match snapshot::recorded_volume(&agent.volumes, &build) {
        Some(volume) => Some(volume.clone()),
        None => snapshot::volume_or_log(agent, &build).await,
    };
    // Without a snapshot, no volume has anything that must be deleted later.
    let Some(volume) = found.or_else(|| agent.volumes.iter().next().cloned()) else {
        return;
    };
    spawn_build(agent, volume, build, build::AttemptKind::Adopted);
}

fn spawn_build(agent: &Arc<AgentState>, volume: Volume, build: Build, kind: build::AttemptKind) {
    let id = build.id;
    let cancel = agent.stopping.child_token();
    let mut job = BuildJob::new(&build, cancel.clone());
    if matches!(kind, build::AttemptKind::Adopted) {
        // Its guest has written already: what was available before is unknown.
        job.available = None;
        if build.cancel_requested {
            cancel.cancel();
        }
    }
    agent.jobs.with(|jobs| jobs.builds.insert(id, job));
    let task_agent = Arc::clone(agent);
    let task = async move {
        build::run(&task_agent, &volume, build, kind, &cancel).await;
        task_agent.jobs.with(|jobs| jobs.builds.remove(&id));
        task_agent.wake.notify_one();
    };
    agent.tasks.spawn(task.instrument(info_span!("build", %id)));
}

/// Ends a build whose guest was never started.
///
/// # Errors
/// When the build has ended already.
pub fn end_without_start(
    build: &mut Build,
    outcome: Outcome,
    message: String,
) -> Result<(), TransitionError> {
    build.enter(State::Finished, Timestamp::now())?;
    build.outcome = Some(outcome);
    build.message = message;
    Ok(())
}
