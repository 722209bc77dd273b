//! Builds: for each attempt a throw-away snapshot of an image, a guest with the task, the
//! result, the revisions of the packages, and the record.

mod attempt;
mod auxiliaries;
mod auxiliary_task;
mod boot;
pub(crate) mod cache;
pub(super) mod collect;
mod conclude;
mod controller;
mod driven;
pub mod files;
pub(crate) mod hashserv;
mod inputs;
mod logs;
mod new_guest;
mod outcome;
mod progress;
mod provenance;
pub(crate) mod secrets;
mod upload;
mod verdict;

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
use store::{Snapshot, Volume};
use sys::blocking::blocking;
use tftp::server::RefusedPut;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::disk_use;
use super::hold;
use super::runner::JobError;
use super::snapshot;
use attempt::Attempt;
use state::AgentState;

pub use auxiliary_task::tags as auxiliary_tags;
pub use collect::{CollectError, Collected, Report, read as read_result};
pub use conclude::{Rules, conclude};
pub use controller::{Upload, report_to_controller, uploads};
pub use files::RESULTS;
pub use provenance::program as signer_program;
pub use upload::Limits as UploadLimits;
pub use verdict::{Facts, Verdict};

/// The kind of an attempt at a build.
#[derive(Debug)]
pub enum AttemptKind {
    /// With a new guest.
    Fresh(Box<BuildStart>),
    /// With the guest that an earlier agent started.
    Adopted,
    /// With a guest that continues in this snapshot of a fork point.
    Copy(Result<Arc<Snapshot>, JobError>),
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
            AttemptKind::Copy(snapshot) => match build.forked_from {
                Some(origin) => {
                    attempt::start_copy(agent, &mut build, origin, snapshot, cancel).await
                }
                None => Attempt::failed(JobError::Panicked),
            },
        }
    };
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    let attempt = attempt.unwrap_or_else(|_| Attempt::failed(JobError::Panicked));
    if matches!(attempt.result, Err(JobError::LeftRunning)) {
        return;
    }
    auxiliaries::delete_snapshots(agent, &build).await;
    let mut facts = facts(agent, volume, &build, attempt.result, attempt.refused).await;
    settle_log(agent, build.id).await;
    let mut suspended = attempt.suspended;
    // From here on a cancellation is refused, so that an accepted one is among the facts.
    facts.canceled = agent.jobs.conclude_build(build.id) || build.cancel_requested;
    let verdict = Verdict::of(facts);
    build.interactive.held = None;
    if !verdict.may_be_held()
        && let Some(session) = suspended.take()
    {
        session.kill().await;
    }
    if suspended.is_some() {
        let (kind, until) = (HoldKind::Guest, hold::until(agent));
        build.interactive.held = Some(Hold { kind, until });
    } else if let Err(error) = snapshot::delete(volume, &build).await {
        let error = &error as &dyn Error;
        warn!(error, "cannot delete the snapshot of a build");
    }
    cache::settle(agent, &build, verdict.is_good()).await;
    outcome::record(agent, build.clone(), verdict).await;
    hold::run(agent, volume, build, suspended, cancel.clone()).await;
}

/// Makes one log of those of a guest that has ended.
async fn settle_log(agent: &AgentState, id: BuildId) {
    let directory = agent.paths.build(id);
    let bytes_max = agent.settings().builds.log_bytes_max;
    if let Err(error) = blocking(move || logs::settle(&directory, bytes_max)).await {
        warn!(build = %id, %error, "cannot complete the log of a build");
    }
}

/// Collects the facts about an attempt while its snapshot exists.
async fn facts(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &Build,
    ended: Result<Collected, JobError>,
    refused: Vec<RefusedPut>,
) -> Facts {
    let (mut artifacts, mut short) = (Vec::new(), None);
    match &ended {
        Ok(collected) if collected.outcome.is_good() => {}
        Ok(_) => short = disk_use::of_short_volume(agent, volume, build).await,
        Err(_) => artifacts = collect::artifacts(agent, build.id).await,
    }
    Facts {
        ended,
        artifacts,
        refused,
        evicted: agent.jobs.eviction(&JobId::Build(build.id)),
        short,
        is_given: build.controller.is_some(),
        canceled: false,
        stopping: agent.stopping.is_cancelled(),
        lease_end: agent.jobs.lease_end(build.id),
    }
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
    for mut build in agent.records.unfinished().await? {
        if build.state == State::Queued && build.cancel_requested {
            outcome::record_earlier(agent, build, Verdict::Canceled).await;
            continue;
        }
        if build.state == State::Queued {
            continue;
        }
        let (task_agent, id) = (Arc::clone(agent), build.id);
        let (state, attempts) = (build.state, build.attempts);
        let (has_result, has_guest) = blocking(move || {
            let directory = task_agent.paths.build(id);
            // The result of an attempt that is being repeated is not one of the repetition.
            let has_begun =
                state > State::Starting || logs::has_begun(&directory, attempts.saturating_sub(1));
            let has_result = has_begun && collect::has_result(&directory);
            let has_guest = !has_result && session::is_running(&task_agent.guests, &id.to_string());
            (has_result, has_guest)
        })
        .await;
        if has_guest {
            running.push(build);
            continue;
        }
        info!(build = %build.id, state = %build.state, "settling a build of an earlier agent");
        if !has_result && build.repeats_trial() {
            // The revision on trial did not end its guest.
            build.trial = build.trial.filter(|it| it.result.is_some());
        }
        let result = if has_result {
            collect::collect(agent, build.id)
                .await
                .map_err(JobError::from)
        } else {
            Err(JobError::Guest(GuestFailure::AgentGone))
        };
        settle_log(agent, build.id).await;
        let facts = Facts {
            canceled: build.cancel_requested,
            is_given: build.controller.is_some(),
            ..Facts::of_end(result)
        };
        let verdict = Verdict::of(facts);
        cache::settle(agent, &build, verdict.is_good()).await;
        outcome::record_earlier(agent, build, verdict).await;
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
