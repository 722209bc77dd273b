//! Runs builds: a throw-away snapshot of a bootstrapped image for each, the task,
//! the result, the revisions of the packages, the record.

mod attempt;
mod collect;
mod conclude;
pub(crate) mod files;
mod inputs;
pub(crate) mod limits;
mod progress;
mod provenance;
pub(crate) mod snapshot;
mod upload;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use config::BuildId;
use config::builds::{Build, Hold, HoldKind, State, TransitionError};
use config::machine::MachineError;
use config::task;
use futures_util::FutureExt;
use jiff::Timestamp;
use store::{StoreError, Volume};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::housekeeping::disk_pressure;
use crate::jobs::hold;
use crate::records::RecordsError;
use crate::session::{self, GuestFailure, SessionError};
use crate::state::agent_state::{AgentState, Job};

pub(crate) use collect::RESULTS;
pub use collect::{CollectError, Collected};
pub use conclude::{Rules, Verdict, conclude};
pub use provenance::PROVENANCE;

/// The file with a build's live log; [`task::LOG`] takes its place at the end.
pub const LIVE_LOG: &str = "log.live";
/// The directory with what a build gave out.
pub const ARTIFACTS: &str = "artifacts";

/// Why an attempt at a build came to no result.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The machine's directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of ours.
    #[error("cannot read or write a file of the build: {0}")]
    File(#[from] std::io::Error),
    /// The machine's manifest.
    #[error("the machine's manifest cannot be used: {0}")]
    Machine(#[from] MachineError),
    /// The record.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The guest could not be brought up.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The guest ended too early.
    #[error(transparent)]
    Ended(#[from] GuestFailure),
    /// The agent stops and its guest goes on.
    #[error("the guest runs on without us")]
    LeftRunning,
    /// We fell over.
    #[error("the agent itself failed; its log says where")]
    Panicked,
    /// It may have failed for want of room, which is not its fault.
    #[error("the build failed while the volume {} was nearly full", .0.display())]
    NoRoom(PathBuf),
    /// The result cannot be used.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The build's state does not allow this.
    #[error(transparent)]
    State(#[from] TransitionError),
}

/// Where an attempt at a build begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With a new guest.
    New,
    /// With the guest that an earlier agent started.
    Running,
}

/// Runs one attempt at a build and records what came of it. When the guest is left
/// running for the next agent, the record stays as it is.
pub async fn run(
    agent: &AgentState,
    volume: &Volume,
    mut build: Build,
    begin: Begin,
    cancel: &CancellationToken,
) {
    let attempt = async {
        match begin {
            Begin::New => attempt::start(agent, volume, &mut build, cancel).await,
            Begin::Running => attempt::go_on(agent, &mut build, cancel).await,
        }
    };
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    let mut attempt = attempt.unwrap_or(Err(AttemptError::Panicked));
    if let Some(place) = agent.was_ended_for_room(&Job::Build(build.id))
        && matches!(attempt, Err(AttemptError::Ended(GuestFailure::Cancelled)))
    {
        attempt = Err(AttemptError::Ended(GuestFailure::DiskFull(place)));
    }
    if attempt.as_ref().is_ok_and(|done| !done.outcome.is_good())
        && disk_pressure::is_short(agent, volume)
    {
        attempt = Err(AttemptError::NoRoom(volume.path().to_owned()));
    }
    if matches!(attempt, Err(AttemptError::LeftRunning)) {
        return;
    }
    agent.held.forget(build.id);
    let session = agent.held.take(build.id);
    build.interactive.held = None;
    if session.is_some() {
        let (stay, until) = (HoldKind::Guest, hold::until(agent));
        build.interactive.held = Some(Hold { kind: stay, until });
    } else if let Err(error) = snapshot::drop(volume, &build).await {
        warn!(
            "cannot delete the snapshot of a build: {}",
            sys::error_report::chain(&error)
        );
    }
    settle(agent, build.clone(), attempt).await;
    hold::keep(agent, volume, build, session, cancel.clone()).await;
}

/// Sorts the builds that an agent before us left without an outcome: those whose
/// result is there are finished, those whose guest is gone go back into the queue;
/// the others, whose guests still run, are returned.
pub async fn recover(agent: &AgentState) -> Result<Vec<Build>, RecordsError> {
    // Records that were lost, or are from a backup, must not lead to a second build
    // of a number: it would take the first one's place.
    let directories = sys::file::entries(&agent.builds_directory()).unwrap_or_default();
    if let Some(taken) = directories.iter().filter_map(|path| number(path)).max() {
        agent.records.number_above(taken).await?;
    }
    let mut running = Vec::new();
    for build in agent.records.unfinished().await? {
        if build.state == State::Queued {
            continue;
        }
        let has_result = collect::has_result(&agent.build_directory(build.id));
        if !has_result && session::is_running(&agent.guests, &build.id.to_string()) {
            running.push(build);
            continue;
        }
        info!(build = %build.id, state = %build.state, "settling a build that an earlier agent left");
        let attempt = if has_result {
            collect::collect(agent, build.id)
                .await
                .map_err(AttemptError::from)
        } else {
            Err(AttemptError::Ended(GuestFailure::AgentGone))
        };
        settle(agent, build, attempt).await;
    }
    Ok(running)
}

/// The build that a directory belongs to by its name; numbers that we cannot have
/// come to are somebody else's.
fn number(directory: &Path) -> Option<BuildId> {
    let id: BuildId = directory.file_name()?.to_str()?.parse().ok()?;
    (id.0 < 1 << 48).then_some(id)
}

/// Records what came of an attempt.
async fn settle(agent: &AgentState, build: Build, attempt: Result<Collected, AttemptError>) {
    let rules = Rules::new(&agent.settings.builds, agent.stopping.is_cancelled());
    let id = build.id;
    let build = match conclude(build, Verdict::from(attempt), &rules, Timestamp::now()) {
        Ok(build) => build,
        Err(error) => return error!(build = %id, %error, "cannot conclude a build"),
    };
    // Before the record says that it is there.
    if let Err(error) = provenance::write(agent, &build).await {
        error!(build = %build.id, %error, "cannot write the provenance of a build");
    }
    match agent.records.save(&build).await {
        Ok(()) => match build.outcome {
            Some(outcome) => {
                info!(build = %build.id, %outcome, message = build.message, "build finished");
            }
            None => {
                info!(build = %build.id, message = build.message, "build goes back into the queue");
            }
        },
        Err(error) => error!(build = %build.id, %error, "cannot record what came of a build"),
    }
}

/// The whole log when the guest has put it, else what came live.
pub(crate) fn log_file(agent: &AgentState, id: BuildId) -> PathBuf {
    let directory = agent.build_directory(id);
    let whole = directory.join(task::LOG);
    if whole.exists() {
        whole
    } else {
        directory.join(LIVE_LOG)
    }
}
