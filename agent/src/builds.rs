//! Runs builds: a throw-away snapshot of a bootstrapped image for each, the task,
//! the result, the revisions of the packages, the record.

mod attempt;
mod collect;
mod conclude;
pub(crate) mod files;
pub(crate) mod limits;
mod origin;
mod progress;
mod provenance;
pub(crate) mod snapshot;
mod upload;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use config::BuildId;
use config::builds::{Build, Held, State, Stay};
use config::machine::MachineError;
use config::task;
use futures_util::FutureExt;
use jiff::Timestamp;
use store::{StoreError, Volume};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::held;
use crate::host::{Host, Job};
use crate::records::RecordsError;
use crate::room;
use crate::session::{self, Ended, SessionError};

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
    Ended(#[from] Ended),
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
    host: &Host,
    volume: &Volume,
    mut build: Build,
    begin: Begin,
    cancel: &CancellationToken,
) {
    let attempt = async {
        match begin {
            Begin::New => attempt::start(host, volume, &mut build, cancel).await,
            Begin::Running => attempt::go_on(host, &mut build, cancel).await,
        }
    };
    let attempt = AssertUnwindSafe(attempt).catch_unwind().await;
    let mut attempt = attempt.unwrap_or(Err(AttemptError::Panicked));
    if let Some(place) = host.was_ended_for_room(&Job::Build(build.id))
        && matches!(attempt, Err(AttemptError::Ended(Ended::Cancelled)))
    {
        attempt = Err(AttemptError::Ended(Ended::Full(place)));
    }
    if attempt.as_ref().is_ok_and(|done| !done.outcome.is_good()) && room::is_short(host, volume) {
        attempt = Err(AttemptError::NoRoom(volume.path().to_owned()));
    }
    if matches!(attempt, Err(AttemptError::LeftRunning)) {
        return;
    }
    host.held.forget(build.id);
    let session = host.held.take(build.id);
    build.life.held = None;
    if session.is_some() {
        let (stay, until) = (Stay::Guest, held::until(host));
        build.life.held = Some(Held { stay, until });
    } else if let Err(error) = snapshot::drop(volume, &build).await {
        warn!(
            "cannot delete the snapshot of a build: {}",
            crate::chain(&error)
        );
    }
    settle(host, build.clone(), attempt).await;
    held::keep(host, volume, build, session, cancel.clone()).await;
}

/// Sorts the builds that an agent before us left without an outcome: those whose
/// result is there are finished, those whose guest is gone go back into the queue;
/// the others, whose guests still run, are returned.
pub async fn recover(host: &Host) -> Result<Vec<Build>, RecordsError> {
    // Records that were lost, or are from a backup, must not lead to a second build
    // of a number: it would take the first one's place.
    let directories = store::file::entries(&host.builds_directory()).unwrap_or_default();
    if let Some(taken) = directories.iter().filter_map(|path| number(path)).max() {
        host.records.number_above(taken).await?;
    }
    let mut running = Vec::new();
    for build in host.records.unfinished().await? {
        if build.state == State::Queued {
            continue;
        }
        let has_result = collect::has_result(&host.build_directory(build.id));
        if !has_result && session::is_running(host, &build.id.to_string()) {
            running.push(build);
            continue;
        }
        info!(build = %build.id, state = %build.state, "settling a build that an earlier agent left");
        let attempt = if has_result {
            collect::collect(host, build.id)
                .await
                .map_err(AttemptError::from)
        } else {
            Err(AttemptError::Ended(Ended::Left))
        };
        settle(host, build, attempt).await;
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
async fn settle(host: &Host, build: Build, attempt: Result<Collected, AttemptError>) {
    let rules = Rules::new(&host.settings.builds, host.stopping.is_cancelled());
    let build = conclude(build, Verdict::from(attempt), &rules, Timestamp::now());
    // Before the record says that it is there.
    if let Err(error) = provenance::write(host, &build).await {
        error!(build = %build.id, %error, "cannot write the provenance of a build");
    }
    match host.records.save(&build).await {
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
pub(crate) fn log_file(host: &Host, id: BuildId) -> PathBuf {
    let directory = host.build_directory(id);
    let whole = directory.join(task::LOG);
    if whole.exists() {
        whole
    } else {
        directory.join(LIVE_LOG)
    }
}
