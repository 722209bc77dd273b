//! Builds: for each attempt a throw-away snapshot of an image, a guest with the task, the
//! result, the revisions of the packages, and the record.

mod attempt;
pub(super) mod collect;
mod conclude;
pub(crate) mod files;
mod inputs;
mod logs;
mod outcome;
mod progress;
mod provenance;
mod upload;

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use config::BuildId;
use config::builds::{Build, Hold, HoldKind, State};
use futures_util::FutureExt;
use planner::{BuildStart, JobId};
use records::RecordsError;
use session::GuestFailure;
use store::Volume;
use sys::blocking::blocking;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::hold;
use super::runner::JobError;
use super::snapshot;
use crate::state::AgentState;
use attempt::Attempt;

pub use collect::{CollectError, Collected, read as read_result};
pub use conclude::{Rules, Verdict, conclude};
pub(crate) use files::RESULTS;
pub(crate) use provenance::program as signer_program;
pub use upload::Limits as UploadLimits;

/// The kind of an attempt at a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptKind {
    /// With a new guest.
    Fresh(BuildStart),
    /// With the guest that an earlier agent started.
    Adopted,
}

/// Runs one attempt at a build and records its result. A guest that is left to the next
/// agent leaves the record as it is.
pub(super) async fn run(
    agent: &Arc<AgentState>,
    volume: &Volume,
    mut build: Build,
    kind: AttemptKind,
    cancel: &CancellationToken,
) {
    let attempt = async {
        match kind {
            AttemptKind::Fresh(start) => {
                attempt::start(agent, volume, &mut build, &start, cancel).await
            }
            AttemptKind::Adopted => attempt::adopt(agent, volume, &mut build, cancel).await,
        }
    };
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    let Attempt { result, held_guest } =
        attempt.unwrap_or_else(|_| Attempt::failed(JobError::Panicked));
    let evicted = agent.jobs.eviction(&JobId::Build(build.id));
    let result = match result.map_err(|error| error.or_eviction(evicted)) {
        Err(JobError::LeftRunning) => return,
        Ok(collected) if !collected.outcome.is_good() && is_short(agent, volume).await => {
            Err(JobError::DiskPressure(volume.path().to_owned()))
        }
        result => result,
    };
    settle_log(agent, build.id).await;
    build.interactive.held = None;
    if held_guest.is_some() {
        let (kind, until) = (HoldKind::Guest, hold::until(agent));
        build.interactive.held = Some(Hold { kind, until });
    } else if let Err(error) = snapshot::delete(volume, &build).await {
        let error = &error as &dyn Error;
        warn!(error, "cannot delete the snapshot of a build");
    }
    outcome::record(agent, build.clone(), result).await;
    hold::run(agent, volume, build, held_guest, cancel.clone()).await;
}

/// Makes one log of those of a guest that has ended.
async fn settle_log(agent: &AgentState, id: BuildId) {
    let directory = agent.paths.build(id);
    let bytes_max = agent.settings.builds.log_bytes_max;
    if let Err(error) = blocking(move || logs::settle(&directory, bytes_max)).await {
        warn!(build = %id, %error, "cannot complete the log of a build");
    }
}

/// Returns true if a volume has less free space than its reserve.
async fn is_short(agent: &AgentState, volume: &Volume) -> bool {
    let reserve = agent.settings.paths.reserve_bytes;
    let volume = volume.clone();
    blocking(move || volume.free().is_ok_and(|free| free < reserve)).await
}

/// Settles the builds that an earlier agent left without an outcome: one with a result is
/// finished, one without a guest goes back into the queue. Returns the others, whose
/// guests still run.
///
/// # Errors
/// When the records cannot be read.
pub async fn recover(agent: &Arc<AgentState>) -> Result<Vec<Build>, RecordsError> {
    // After a loss of records, or a restore of older ones, the number of a build must not
    // be used again: the new build would take the directory of the old one.
    let builds = agent.paths.builds();
    let newest = blocking(move || {
        let directories = sys::file::entries(&builds).unwrap_or_default();
        directories.iter().filter_map(|path| number(path)).max()
    });
    if let Some(newest) = newest.await {
        agent.records.reserve_ids(newest).await?;
    }
    let mut running = Vec::new();
    for build in agent.records.unfinished().await? {
        if build.state == State::Queued {
            continue;
        }
        let (task_agent, id) = (Arc::clone(agent), build.id);
        let (has_result, has_guest) = blocking(move || {
            let has_result = collect::has_result(&task_agent.paths.build(id));
            let has_guest = !has_result && session::is_running(&task_agent.guests, &id.to_string());
            (has_result, has_guest)
        })
        .await;
        if has_guest {
            running.push(build);
            continue;
        }
        info!(build = %build.id, state = %build.state, "settling a build of an earlier agent");
        let result = if has_result {
            collect::collect(agent, build.id)
                .await
                .map_err(JobError::from)
        } else {
            Err(JobError::Guest(GuestFailure::AgentGone))
        };
        settle_log(agent, build.id).await;
        outcome::record_earlier(agent, build, result).await;
    }
    Ok(running)
}

/// Returns the build that a directory belongs to by its name, if an agent can have made
/// it: no agent counts that far.
fn number(directory: &Path) -> Option<BuildId> {
    const NUMBER_MAX: u64 = 1 << 48;
    let id: BuildId = directory.file_name()?.to_str()?.parse().ok()?;
    (id.0 < NUMBER_MAX).then_some(id)
}
