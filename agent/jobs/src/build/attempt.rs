//! One attempt at a build: its guest, from its start or its adoption until the result is
//! stored.

mod copy;
mod guest;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, State};
use config::canary::TrialRun;
use config::limits::Limits;
use jiff::Timestamp;
use planner::BuildStart;
use records::RecordsError;
use session::Session;
use store::Volume;
use sys::blocking::blocking;
use tftp::server::RefusedPut;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::collect::Collected;
use super::new_guest::NewGuest;
use super::{RESULTS, auxiliaries, boot, cache, driven, files, hashserv, logs, progress, secrets};
use crate::runner::{self, Bounds, GuestSource, JobError};
use crate::{disk_use, limits, snapshot};
pub(super) use copy::start_copy;
use guest::BuildGuest;
use state::{AgentState, ImageFacts};

/// The end of an attempt.
pub(super) struct Attempt {
    /// The result that is stored, or the error.
    pub result: Result<Collected, JobError>,
    /// The files that the host did not accept from the guest.
    pub refused: Vec<RefusedPut>,
    /// The suspended guest, if it may have to be held.
    pub suspended: Option<Session>,
}

impl Attempt {
    pub(super) fn failed(error: JobError) -> Self {
        Self {
            result: Err(error),
            refused: Vec::new(),
            suspended: None,
        }
    }
}

impl From<Result<Self, JobError>> for Attempt {
    fn from(attempt: Result<Self, JobError>) -> Self {
        attempt.unwrap_or_else(Self::failed)
    }
}

/// Starts a guest for a build: from the image's checkpoint if that may be restored, and
/// cold after a failed restore.
pub(super) async fn start(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &mut Build,
    start: &BuildStart,
    cancel: &CancellationToken,
) -> Attempt {
    if let Err(error) = prepare(agent, volume, build, start.trial.clone()).await {
        return Attempt::failed(error);
    }
    loop {
        let attempt = Attempt::from(start_guest(agent, volume, build, start, cancel).await);
        match &attempt.result {
            Err(error) if build.restored && boot::may_be_restores_fault(error, build.state) => {
                let error = error as &dyn Error;
                warn!(
                    error,
                    "cannot restore the checkpoint: the build starts cold"
                );
                let message = sys::error_report::chain(error);
                agent.restores.restore_failed(&start.key, message);
                agent.telemetry.metrics.restore_failure();
            }
            _ => return attempt,
        }
    }
}

/// Records that an attempt starts, and makes its directory.
async fn prepare(
    agent: &AgentState,
    volume: &Volume,
    build: &mut Build,
    trial: Option<TrialRun>,
) -> Result<(), JobError> {
    enter_starting(agent, volume, build, trial).await?;
    let (directory, earlier) = (agent.paths.build(build.id), build.attempts - 1);
    let bytes_max = agent.settings().builds.log_bytes_max;
    blocking(move || logs::begin_attempt(&directory, earlier, bytes_max)).await?;
    disk_use::note_available(agent, volume).await;
    Ok(())
}

/// Records that an attempt starts, unless the build has left the queue since it was planned. What
/// was changed in its record since, such as its priority, stays.
async fn enter_starting(
    agent: &AgentState,
    volume: &Volume,
    build: &mut Build,
    trial: Option<TrialRun>,
) -> Result<(), JobError> {
    // JSON, the form of the record, has no paths that are not UTF-8.
    let volume = volume.path().to_str().map(PathBuf::from);
    let start = move |build: &mut Build| {
        build.attempts += 1;
        build.not_before = None;
        build.volume = volume;
        if let Some(trial) = trial {
            build.trial = Some(trial);
        }
        build.state == State::Queued && build.enter(State::Starting, Timestamp::now()).is_ok()
    };
    // Counted whatever happens, so that the retries end.
    build.attempts += 1;
    match agent.records.change(build.id, start).await? {
        Some((started, true)) => {
            *build = started;
            Ok(())
        }
        Some(_) | None => Err(RecordsError::Conflict(build.id).into()),
    }
}

/// Runs a new guest until its result is stored.
async fn start_guest(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &mut Build,
    start: &BuildStart,
    cancel: &CancellationToken,
) -> Result<Attempt, JobError> {
    let guest = NewGuest::prepare(agent, volume, build, start).await?;
    let attempt = run(agent, build, guest.source, guest.limits, cancel).await;
    if let Some(load) = guest.load {
        // Its failure is logged, and costs later guests only memory.
        let _ = load.await;
    }
    attempt
}

/// Adopts the guest that an earlier agent started, and runs it until its result is stored.
pub(super) async fn adopt(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Attempt {
    Attempt::from(adopt_guest(agent, volume, build, cancel).await)
}

async fn adopt_guest(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Result<Attempt, JobError> {
    let directory = snapshot::directory(volume, build);
    let facts = blocking(move || ImageFacts::read(&directory)).await;
    let settings = &agent.settings();
    let limits = match &facts.machine {
        Ok(machine) => limits::of_attempt(settings, build, machine),
        Err(_) => limits::with_restore(settings, build, settings.builds.limits),
    };
    // A copy need not ask for its task.
    let contacted = build.state > State::Starting || build.forked_from.is_some();
    // Its first contact may have been missed: the time limit for it starts again.
    let elapsed = build
        .started
        .filter(|_| contacted)
        .map(|started| Timestamp::now().duration_since(started));
    let secrets = secrets::of_build(agent, build).await;
    let earlier = copy::elapsed_before(build);
    let spec = session::AdoptSpec {
        tag: build.id.to_string(),
        machine: build.machine.clone(),
        files: files::namespace(agent, build).await?,
        capture: files::record(agent, &agent.paths.build(build.id)),
        secrets: secrets.as_ref().cloned().unwrap_or_default(),
        cache: cache::of_adopted_guest(agent, build).await,
        hashserv: hashserv::of_build(agent, build),
        commands: driven::of_build(agent, build, limits.idle),
        elapsed: Duration::try_from(elapsed.unwrap_or_default()).unwrap_or_default() + earlier,
        contacted,
        fork: build.forked_from.map(|origin| origin.identity()),
        auxiliaries: auxiliaries::adopt(agent, build).await?,
    };
    if let Err(error) = secrets {
        // What is not known cannot be masked any more.
        Session::adopt(&agent.guests, spec).await?.kill().await;
        return Err(error);
    }
    run(
        agent,
        build,
        GuestSource::Adopt(Box::new(spec)),
        driven::limits(build, limits),
        cancel,
    )
    .await
}

async fn run(
    agent: &Arc<AgentState>,
    build: &mut Build,
    guest: GuestSource,
    limits: Limits,
    cancel: &CancellationToken,
) -> Result<Attempt, JobError> {
    let bounds = Bounds {
        limits,
        result_files: &RESULTS,
        cancel,
    };
    // A failure on a revision on trial is repeated on the current one, and no guest outlives its lease.
    let hold = (build.interactive.hold || agent.settings().builds.hold_always)
        && build.running_trial().is_none()
        && !build.is_guarded();
    let mut progress = JoinSet::new();
    progress.spawn(progress::follow(Arc::clone(agent), build.id));
    let job = BuildGuest {
        agent,
        hold,
        progress,
        paused: build.interactive.held,
        build,
    };
    runner::run(agent, guest, bounds, job).await
}
