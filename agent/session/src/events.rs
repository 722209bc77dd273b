//! The events of a session, and the failures that end it.

use std::path::PathBuf;
use std::time::Duration;

use config::task::{BREAKPOINT, RESUME};
use guest::{Exit, GuestEnd};
use tftp::server::Event;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::console_tail::ConsoleTail;
use super::gateway::Gateway;
use super::{Pause, Session};

/// The time in which events of a guest that has ended may still arrive.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);

/// The limits of a session, and the files that complete it.
pub struct SessionLimits<'a> {
    /// The time limits.
    pub times: config::limits::Limits,
    /// The files that each complete the session when the guest has put one.
    pub result_files: &'a [&'a str],
}

/// A step of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest's first packet arrived.
    FirstContact,
    /// The guest put a result file.
    ResultReceived,
    /// The guest waits for its task, and a checkpoint of it can be saved.
    Ready,
    /// The guest reported a change at its breakpoint.
    Breakpoint,
    /// The pause of the guest has expired.
    PauseExpired,
}

/// A reason why a session ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestFailure {
    /// No request of the guest arrived in time.
    #[error("the guest did not answer within {} s of its start{console}", limit.as_secs())]
    StartTimeout {
        /// The limit.
        limit: Duration,
        /// The end of its console's output.
        console: ConsoleTail,
    },
    /// The guest showed no activity for too long.
    #[error("the guest was idle for {} s: no log, no console output, no transfer", .0.as_secs())]
    IdleTimeout(Duration),
    /// The guest exceeded its total time.
    #[error("the guest took longer than {} s", .0.as_secs())]
    TotalTimeout(Duration),
    /// The guest's process ended.
    #[error(
        "the guest ended before it had put its result: {end}{}{console}",
        guest::stderr_suffix(stderr)
    )]
    Exited {
        /// Its end.
        end: GuestEnd,
        /// The end of the standard error of its program.
        stderr: String,
        /// The end of its console's output.
        console: ConsoleTail,
    },
    /// An auxiliary guest ended.
    #[error(
        "auxiliary machine {name} ended, and the build with it: {end}{}{console}",
        guest::stderr_suffix(stderr)
    )]
    AuxiliaryExited {
        /// The machine.
        name: String,
        /// Its end.
        end: GuestEnd,
        /// The end of the standard error of its program.
        stderr: String,
        /// The end of its console's output.
        console: ConsoleTail,
    },
    /// An auxiliary guest was not ready in time.
    #[error(
        "auxiliary machine {name} did not put its `environment` within {} s of its start{console}",
        limit.as_secs()
    )]
    AuxiliaryTimeout {
        /// The machine.
        name: String,
        /// The limit.
        limit: Duration,
        /// The end of its console's output.
        console: ConsoleTail,
    },
    /// The environment of an auxiliary guest cannot be used.
    #[error("auxiliary machine {name}: {fault}")]
    Environment {
        /// The machine.
        name: String,
        /// The fault.
        fault: String,
    },
    /// The session was canceled.
    #[error("it was canceled")]
    Cancelled,
    /// The guest was ended because a disk of the host is nearly full.
    #[error("the volume {} is nearly full, and this guest had written most there", .0.display())]
    DiskFull(PathBuf),
    /// The agent that ran the guest ended.
    #[error("the agent ended while the guest ran")]
    AgentGone,
}

impl Session {
    /// Waits for the next event, or for the failure that ends the session. Cancel-safe.
    pub async fn next(
        &mut self,
        limits: &SessionLimits<'_>,
        cancel: &CancellationToken,
    ) -> Result<GuestEvent, GuestFailure> {
        let (due, timeout) = self.deadline(limits);
        let idle_limit = limits.times.idle;
        let is_idle_limited = self.contacted && self.pause.is_none();
        let deadline = tokio::time::sleep_until(due);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(GuestFailure::Cancelled),
                Some(event) = self.gateway.events.recv() => {
                    if let Some(event) = self.handle_event(event, limits) {
                        return Ok(event);
                    }
                }
                () = Gateway::ready(&mut self.gateway.ready) => return Ok(GuestEvent::Ready),
                Some(request) = self.forks.recv() => self.serve_fork(request).await,
                exit = self.guest.exited() => {
                    return match self.drain_events(limits).await {
                        Some(event) => Ok(event),
                        None => Err(self.exit_failure(exit).await),
                    };
                }
                failure = self.auxiliaries.failure() => return Err(failure),
                () = self.gateway.activity.absent_for(idle_limit), if is_idle_limited => {
                    return Err(GuestFailure::IdleTimeout(idle_limit));
                }
                () = &mut deadline => return match timeout {
                    None => Ok(GuestEvent::PauseExpired),
                    Some(GuestFailure::StartTimeout { limit, .. }) => {
                        Err(GuestFailure::StartTimeout { limit, console: self.console_tail() })
                    }
                    Some(failure) => Err(failure),
                },
            }
        }
    }

    /// Returns the failure of a guest that has ended.
    async fn exit_failure(&self, exit: Exit) -> GuestFailure {
        let shutdown = self.gateway.shutdown.of_ended().await;
        GuestFailure::Exited {
            end: self.guest.end(exit, shutdown),
            stderr: self.guest.take_stderr(),
            console: self.console_tail(),
        }
    }

    fn console_tail(&self) -> ConsoleTail {
        let console = self.gateway.console();
        console.map(|console| console.tail()).unwrap_or_default()
    }

    /// Returns the next deadline and the failure that it means; none for a pause.
    fn deadline(&self, limits: &SessionLimits<'_>) -> (Instant, Option<GuestFailure>) {
        match self.pause {
            Some(pause) => (pause.until, None),
            None if self.contacted => {
                let limit = limits.times.total;
                (
                    self.started + limit,
                    Some(GuestFailure::TotalTimeout(limit)),
                )
            }
            None => {
                let limit = limits.times.start;
                let console = ConsoleTail::default();
                (
                    self.started + limit,
                    Some(GuestFailure::StartTimeout { limit, console }),
                )
            }
        }
    }

    /// Suspends all limits until `until`, for a guest that waits for a person.
    pub fn pause(&mut self, until: Instant) {
        let since = Instant::now();
        self.pause.get_or_insert(Pause { since, until });
    }

    /// Ends a pause. Its time does not count as the guest's.
    pub fn resume(&mut self) {
        if let Some(pause) = self.pause.take() {
            self.started += pause.since.elapsed();
            self.gateway.activity.record();
        }
    }

    /// Returns the first event of those that the guest sent before it ended.
    async fn drain_events(&mut self, limits: &SessionLimits<'_>) -> Option<GuestEvent> {
        while let Ok(Some(event)) = timeout(DRAIN_LIMIT, self.gateway.events.recv()).await {
            if let Some(event) = self.handle_event(event, limits) {
                return Some(event);
            }
        }
        None
    }

    fn handle_event(&mut self, event: Event, limits: &SessionLimits<'_>) -> Option<GuestEvent> {
        match event {
            Event::FirstContact if !self.contacted => {
                self.contacted = true;
                Some(GuestEvent::FirstContact)
            }
            Event::FirstContact => None,
            Event::Put { name, bytes, .. } => {
                self.gateway.metrics.tftp("put", bytes);
                if limits.result_files.contains(&name.as_str()) {
                    return Some(GuestEvent::ResultReceived);
                }
                info!(name, bytes, "the guest put a file");
                (name == BREAKPOINT).then_some(GuestEvent::Breakpoint)
            }
            Event::Fetched { name, bytes } => {
                self.gateway.metrics.tftp("fetch", bytes);
                info!(name, bytes, "the guest fetched a file");
                None
            }
            // A guest at its breakpoint polls for this file.
            Event::Refused { name, .. } if name == RESUME => None,
            Event::Refused { name, reason } => {
                warn!(name, reason, "the guest was refused a file");
                None
            }
        }
    }
}
