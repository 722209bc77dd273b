//! The guest of a build: its steps are recorded, it waits at a breakpoint, and its result is stored.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;

use config::builds::{Build, Hold, HoldKind, State};
use jiff::Timestamp;
use planner::plan::REFILL_PAUSE;
use session::{GuestEvent, GuestFailure, Session};
use sys::blocking::blocking;
use tokio::task::JoinSet;
use tracing::info;

use super::super::collect::{self, Collected};
use super::super::{files, progress, secrets};
use super::{Attempt, copy};
use crate::hold;
use crate::runner::{GuestJob, JobError};
use state::AgentState;

/// The guest of a build.
pub(super) struct BuildGuest<'b> {
    pub(super) agent: &'b Arc<AgentState>,
    pub(super) build: &'b mut Build,
    /// `true` if the guest is held when the build fails.
    pub(super) hold: bool,
    pub(super) progress: JoinSet<Infallible>,
    /// The breakpoint at which an adopted guest waits.
    pub(super) paused: Option<Hold>,
}

impl GuestJob for BuildGuest<'_> {
    type Output = Attempt;

    async fn on_start(&mut self, session: &mut Session) {
        if let Some(held) = self.paused {
            session.pause(hold::instant(held.until));
        }
        let handle = session.fork_handle();
        self.agent.jobs.with(|jobs| {
            if let Some(job) = jobs.builds.get_mut(&self.build.id) {
                job.fork = Some(handle);
            }
        });
        copy::enter_running(self.agent, self.build).await;
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
                if self.build.restored {
                    // It may have been a ready one, of which there is one less now.
                    wake_for_refill(self.agent);
                }
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

/// Lets the scheduler make another ready guest once the start of this build is over.
fn wake_for_refill(agent: &Arc<AgentState>) {
    let agent = Arc::clone(agent);
    tokio::spawn(async move {
        tokio::time::sleep(REFILL_PAUSE.unsigned_abs()).await;
        agent.wake.notify_one();
    });
}

impl BuildGuest<'_> {
    /// Stores the result. The guest is suspended if the build has failed and is to be
    /// held. Else it is killed: its files are here, and nothing of its disk is needed.
    async fn store(self, session: Session) -> (Result<Collected, JobError>, Option<Session>) {
        let (agent, id) = (self.agent, self.build.id);
        let directory = agent.paths.build(id);
        let secrets = session.secrets().clone();
        if !secrets.is_empty() && !secrets.were_requested() {
            session.kill().await;
            let toolchain = self.build.toolchain.clone();
            return (Err(JobError::SecretsUnknown(toolchain)), None);
        }
        if session.ignores_commands() {
            session.kill().await;
            let toolchain = self.build.toolchain.clone();
            return (Err(JobError::CommandsUnknown(toolchain)), None);
        }
        let masked = directory.clone();
        let masked = blocking(move || secrets::mask_files(&masked, &secrets.mask())).await;
        if let Err(error) = masked {
            session.kill().await;
            return (Err(error.into()), None);
        }
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
