//! Forks of a session's guest: the worker stops the processes of its build, the guest is
//! captured, and both go on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use config::task::ForkIdentity;
use guest::Guest;
use guest::fork::{CapturedFork, ForkError, ForkSpec, PreparedFork};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::Session;
use super::handshake::ControlRequest;

/// The time in which the worker must stop the processes of its build.
const MEET_LIMIT: Duration = Duration::from_secs(10);

/// A reason why the guest of a session was not forked. It runs on.
#[derive(Debug, thiserror::Error)]
pub enum ForkFailure {
    /// The guest, its memory or QEMU.
    #[error(transparent)]
    Guest(#[from] ForkError),
    /// The worker is older than the protocol, or does not run the build's program.
    #[error(
        "its worker did not stop the build within {} s: it fetches or puts files at the moment, \
         or it is older than this agent and `buildhost bootstrap` makes an image with a newer one",
        MEET_LIMIT.as_secs()
    )]
    Worker,
    /// The guest waits for a person.
    #[error("its guest waits for a person")]
    Paused,
    /// The guest has ended meanwhile.
    #[error("its guest has ended")]
    Ended,
}

/// A request to fork the guest of a session.
#[derive(Debug)]
pub struct ForkRequest {
    /// The place of the fork point.
    pub spec: ForkSpec,
    /// The number of copies.
    pub copies: u32,
    /// The live log of the guest.
    pub log: PathBuf,
    /// Receives the captured guest.
    pub answer: oneshot::Sender<Result<ForkedGuest, ForkFailure>>,
}

/// A guest that was captured and runs on.
#[derive(Debug)]
pub struct ForkedGuest {
    /// The captured guest, to be completed.
    pub captured: CapturedFork,
    /// The size of its live log at that instant.
    pub log_bytes: u64,
    /// The time since the start of the guest, without its pauses.
    pub elapsed: Duration,
}

/// The way to ask a session for forks.
#[derive(Debug, Clone)]
pub struct ForkHandle(mpsc::Sender<ForkRequest>);

impl ForkHandle {
    /// Creates a handle, and the end that receives its requests.
    pub(super) fn new() -> (Self, mpsc::Receiver<ForkRequest>) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), receiver)
    }

    /// Forks the guest.
    ///
    /// # Errors
    /// When the guest cannot be forked, or has ended. It runs on otherwise.
    pub async fn fork(
        &self,
        spec: ForkSpec,
        copies: u32,
        log: PathBuf,
    ) -> Result<ForkedGuest, ForkFailure> {
        let (answer, forked) = oneshot::channel();
        let request = ForkRequest {
            spec,
            copies,
            log,
            answer,
        };
        self.0.send(request).await.map_err(|_| ForkFailure::Ended)?;
        forked.await.unwrap_or(Err(ForkFailure::Ended))
    }
}

/// Captures the guest, and returns the size of its log as well. Blocks.
fn capture(
    guest: &Guest,
    prepared: PreparedFork,
    log: &Path,
) -> Result<(CapturedFork, u64), ForkError> {
    let log_bytes = std::fs::metadata(log).map_or(0, |log| log.len());
    let captured = guest.capture_fork(prepared)?;
    Ok((captured, log_bytes))
}

impl Session {
    /// Returns the way to ask for forks of the guest. They are made while [`Session::next`] waits.
    pub fn fork_handle(&self) -> ForkHandle {
        self.fork_handle.clone()
    }

    /// Forks the guest, and answers the request.
    pub(super) async fn serve_fork(&mut self, request: ForkRequest) {
        let ForkRequest {
            spec,
            copies,
            log,
            answer,
        } = request;
        // A requester that has left drops the captured guest.
        let _ = answer.send(self.fork(spec, copies, log).await);
    }

    async fn fork(
        &mut self,
        spec: ForkSpec,
        copies: u32,
        log: PathBuf,
    ) -> Result<ForkedGuest, ForkFailure> {
        if self.pause.is_some() {
            return Err(ForkFailure::Paused);
        }
        let prepare = move |guest: &Guest| guest.prepare_fork(spec);
        let prepared = self.guest.run(prepare).await?;
        let requests = self.gateway.control.clone().ok_or(ForkFailure::Worker)?;
        let (report, ready) = oneshot::channel();
        let request = ControlRequest::Fork(report);
        requests
            .send(request)
            .await
            .map_err(|_| ForkFailure::Ended)?;
        let met = matches!(timeout(MEET_LIMIT, ready).await, Ok(Ok(())));
        let began = Instant::now();
        let captured = if met {
            let capture = move |guest: &Guest| capture(guest, prepared, &log);
            self.guest.run(capture).await.map_err(ForkFailure::from)
        } else {
            Err(ForkFailure::Worker)
        };
        let source = ForkIdentity { number: 0, copies };
        let go_on = ControlRequest::Continue(captured.is_ok().then_some(source));
        // A guest that has ended needs no answer.
        let _ = requests.send(go_on).await;
        let (captured, log_bytes) = captured?;
        self.gateway.metrics.fork(captured.stopped());
        info!(
            copies,
            stopped_milliseconds = captured.stopped().as_millis(),
            build_stopped_milliseconds = began.elapsed().as_millis(),
            changed_mib = captured.changed() >> 20,
            "forked the guest"
        );
        Ok(ForkedGuest {
            captured,
            log_bytes,
            elapsed: self.started.elapsed(),
        })
    }
}
