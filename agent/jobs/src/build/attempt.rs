//! One attempt at a build: its guest, from its start or its adoption until the result is
//! stored.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use config::builds::{Build, Hold, HoldKind, State};
use config::canary::TrialRun;
use config::limits::Limits;
use jiff::Timestamp;
use planner::BuildStart;
use records::RecordsError;
use session::{GuestEvent, GuestFailure, Session};
use store::Volume;
use sys::blocking::blocking;
use tftp::server::RefusedPut;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::collect::{self, Collected};
use super::new_guest::NewGuest;
use super::{RESULTS, boot, files, logs, progress};
use crate::runner::{self, Bounds, GuestJob, GuestSource, JobError};
use crate::{disk_use, hold, limits, snapshot};
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
    let bytes_max = agent.settings.builds.log_bytes_max;
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
    let settings = &agent.settings;
    let limits = match &facts.machine {
        Ok(machine) => limits::of_attempt(settings, build, machine),
        Err(_) => limits::with_restore(settings, build, settings.builds.limits),
    };
    let contacted = build.state > State::Starting;
    // Its first contact may have been missed: the time limit for it starts again.
    let elapsed = build
        .started
        .filter(|_| contacted)
        .map(|started| Timestamp::now().duration_since(started));
    let spec = session::AdoptSpec {
        tag: build.id.to_string(),
        machine: build.machine.clone(),
        files: files::namespace(agent, build).await?,
        capture: files::record(agent, &agent.paths.build(build.id)),
        elapsed: elapsed.unwrap_or_default().try_into().unwrap_or_default(),
        contacted,
    };
    run(
        agent,
        build,
        GuestSource::Adopt(Box::new(spec)),
        limits,
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
    // A failure on a revision on trial is repeated on the current one.
    let hold = (build.interactive.hold || agent.settings.builds.hold_always)
        && build.running_trial().is_none();
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

/// The guest of a build.
struct BuildGuest<'b> {
    agent: &'b Arc<AgentState>,
    build: &'b mut Build,
    /// `true` if the guest is held when the build fails.
    hold: bool,
    progress: JoinSet<std::convert::Infallible>,
    /// The breakpoint at which an adopted guest waits.
    paused: Option<Hold>,
}

impl GuestJob for BuildGuest<'_> {
    type Output = Attempt;

    async fn on_start(&mut self, session: &mut Session) {
        if let Some(held) = self.paused {
            session.pause(hold::instant(held.until));
        }
    }

    async fn on_event(
        &mut self,
        session: &mut Session,
        event: GuestEvent,
    ) -> Result<ControlFlow<()>, JobError> {
        match event {
            GuestEvent::Ready => return Ok(ControlFlow::Continue(())),
            GuestEvent::Breakpoint | GuestEvent::PauseExpired => {
                self.pause_or_resume(session, &event).await;
                self.agent.records.save(self.build).await?;
                return Ok(ControlFlow::Continue(()));
            }
            GuestEvent::ResultReceived => self.build.enter(State::Storing, Timestamp::now())?,
            GuestEvent::FirstContact => {
                self.build.enter(State::Running, Timestamp::now())?;
                // It may have been a ready one, of which there is one less now.
                self.agent.wake.notify_one();
                if let Some((start, seconds)) = self.build.startup() {
                    info!(%start, seconds, "the guest has requested its task");
                }
            }
        }
        self.build.message.clear();
        self.agent.records.save(self.build).await?;
        Ok(if event == GuestEvent::ResultReceived {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    async fn on_end(
        mut self,
        session: Session,
        ended: Result<(), JobError>,
    ) -> Result<Attempt, JobError> {
        self.build.usage = session.usage().await;
        self.progress.shutdown().await;
        let refused = session.refused_puts();
        let (result, suspended) = match ended {
            Ok(()) => self.store(session).await,
            Err(
                error @ JobError::Guest(
                    GuestFailure::TotalTimeout(_) | GuestFailure::IdleTimeout(_),
                ),
            ) if self.hold => (Err(error), hold::suspend(session).await),
            Err(error) if error.is_cancelled() && self.agent.leaving.is_cancelled() => {
                session.leave().await;
                (Err(JobError::LeftRunning), None)
            }
            Err(error) => {
                session.kill().await;
                (Err(error), None)
            }
        };
        Ok(Attempt {
            result,
            refused,
            suspended,
        })
    }
}

impl BuildGuest<'_> {
    /// Stores the result. The guest is suspended if the build has failed and is to be
    /// held. Else it is killed: its files are here, and nothing of its disk is needed.
    async fn store(self, session: Session) -> (Result<Collected, JobError>, Option<Session>) {
        let (agent, id) = (self.agent, self.build.id);
        let directory = agent.paths.build(id);
        let failed = self.hold && !blocking(move || collect::is_good(&directory)).await;
        let mut suspended = None;
        if failed {
            suspended = hold::suspend(session).await;
        } else {
            session.kill().await;
        }
        progress::note_all(agent, id).await;
        let result = collect::collect(agent, id).await.map_err(JobError::from);
        (result, suspended)
    }

    /// Lets the guest wait at its breakpoint, or resumes it.
    async fn pause_or_resume(&mut self, session: &mut Session, event: &GuestEvent) {
        let directory = self.agent.paths.build(self.build.id);
        let waits = blocking(move || files::waits(&directory)).await;
        if *event == GuestEvent::Breakpoint && waits {
            let (kind, until) = (HoldKind::Breakpoint, hold::until(self.agent));
            info!(%until, "the guest waits at its breakpoint");
            session.pause(hold::instant(until));
            self.build.interactive.held = Some(Hold { kind, until });
        } else {
            info!("the guest continues from its breakpoint");
            self.agent.jobs.resume_build(self.build.id);
            session.resume();
            self.build.interactive.held = None;
        }
    }
}
