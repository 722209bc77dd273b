//! The runner: brings a guest up, hands its events to a job until that ends or a limit
//! passes, and lets the job end the guest.

use std::ops::ControlFlow;
use std::time::Duration;

use config::builds::TransitionError;
use config::limits::Limits;
use config::task::{self, TaskError};
use config::{NameError, ToolchainName};
use guest::GuestEnd;
use records::RecordsError;
use secrets::SecretsError;
use session::{GuestEvent, GuestFailure, Session, SessionError, StartError};
use store::StoreError;
use tokio_util::sync::CancellationToken;
use yocto::CatalogError;

use super::build::collect::CollectError;
use state::AgentState;

/// The reason for which a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The machine's directory, or the toolchain.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The machine's or the toolchain's content has changed since the job was planned.
    #[error("it has changed since the bootstrap was planned")]
    Changed,
    /// A file of the job.
    #[error("cannot read or write a file of the job")]
    File(#[from] std::io::Error),
    /// The machine's manifest.
    #[error("the machine's manifest cannot be used: {0}")]
    Manifest(String),
    /// The name of the snapshot.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A secret of a build.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The catalog of layers, which knows the origin of sources.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The worker did not request the secrets of its build.
    #[error(
        "the worker of toolchain {0} does not know secrets, and this build needs them; replace \
         the toolchain by one with the `buildhost-worker` of this host"
    )]
    SecretsUnknown(ToolchainName),
    /// The worker is older than commands.
    #[error(
        "the worker of toolchain {0} does not know commands, which drive this guest; replace the \
         toolchain by one with the `buildhost-worker` of this host"
    )]
    CommandsUnknown(ToolchainName),
    /// The record.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The state of the build does not allow this.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// The lease of its task is over, or was not confirmed.
    #[error("the lease of its task was over before its guest could start")]
    LeaseOver,
    /// The guest could not be brought up.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The guest ended too early.
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    /// The agent stops and the guest is left to the next one.
    #[error("the guest is left to the next agent")]
    LeftRunning,
    /// The job panicked.
    #[error("the agent itself failed; its log says where")]
    Panicked,
    /// The result of a build cannot be used.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// The result of a bootstrap cannot be used.
    #[error("the guest's bootstrap.manifest cannot be used")]
    BootstrapResult(#[from] TaskError),
    /// The toolchain's `bootstrap` failed.
    #[error("the toolchain's bootstrap ended with {status}: {message}")]
    Toolchain {
        /// Its outcome.
        status: task::Outcome,
        /// Its message.
        message: String,
    },
    /// The guest of a bootstrap did not shut itself down in time.
    #[error(
        "the guest did not shut itself down within {} s of its result, so its disk cannot be trusted; `shutdown-seconds-max` in the machine's manifest sets this limit",
        .0.as_secs()
    )]
    ShutdownTimeout(Duration),
    /// The guest of a bootstrap ended without a shutdown.
    #[error("the guest ended without shutting down, so its disk cannot be trusted: {0}")]
    UncleanShutdown(GuestEnd),
    /// The worker does not wait for its task, so that no checkpoint can be made.
    #[error("the worker does not wait for its task")]
    CheckpointUnsupported,
    /// A person typed on the console of the guest of which a checkpoint was made.
    #[error("a person typed on the console of its guest")]
    CheckpointTyped,
    /// The volume has too little space for a checkpoint.
    #[error(
        "{free} MiB of the volume are free, too few for {memory} MiB of memory beside its reserve"
    )]
    CheckpointSpace {
        /// The free space, in MiB.
        free: u64,
        /// The memory of the guest, in MiB.
        memory: u64,
    },
}

impl JobError {
    /// Returns true if the job was canceled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Guest(GuestFailure::Cancelled))
    }
}

impl From<StartError> for JobError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Session(error) => error.into(),
            StartError::Guest(failure) => failure.into(),
        }
    }
}

/// A job that runs one guest.
pub trait GuestJob: Send + Sized {
    /// The result of the job.
    type Output: Send;

    /// Prepares a guest that has been brought up.
    fn on_start(&mut self, _session: &mut Session) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Handles an event of the guest. [`ControlFlow::Break`] ends the job.
    fn on_event(
        &mut self,
        session: &mut Session,
        event: GuestEvent,
    ) -> impl Future<Output = Result<ControlFlow<()>, JobError>> + Send;

    /// Ends the guest, after the job has ended or failed.
    fn on_end(
        self,
        session: Session,
        ended: Result<(), JobError>,
    ) -> impl Future<Output = Result<Self::Output, JobError>> + Send;
}

/// The guest of a job.
pub enum GuestSource {
    /// A new guest.
    Start(Box<session::SessionSpec>),
    /// A new guest, after auxiliary ones.
    StartTogether(Box<session::SessionSpec>, session::AuxiliaryGroup),
    /// A ready guest.
    Ready(Box<session::ReadyGuest>, Box<session::SessionSpec>),
    /// The guest that an earlier agent started.
    Adopt(Box<session::AdoptSpec>),
}

/// The ends that a job sets to its guest.
pub struct Bounds<'b> {
    /// The time limits.
    pub limits: Limits,
    /// The files of which any ends the job when the guest has put it.
    pub result_files: &'b [&'b str],
    /// Cancels the job.
    pub cancel: &'b CancellationToken,
}

/// Runs a guest until its job ends.
///
/// # Errors
/// When the guest cannot be brought up, ends too early, or the job fails.
pub async fn run<J: GuestJob>(
    agent: &AgentState,
    guest: GuestSource,
    bounds: Bounds<'_>,
    mut job: J,
) -> Result<J::Output, JobError> {
    let mut session = match guest {
        GuestSource::Start(spec) => Session::start(&agent.guests, *spec).await?,
        GuestSource::StartTogether(spec, group) => {
            Session::start_together(&agent.guests, *spec, group, bounds.cancel).await?
        }
        GuestSource::Ready(guest, spec) => Session::take(&agent.guests, *guest, *spec).await?,
        GuestSource::Adopt(spec) => Session::adopt(&agent.guests, *spec).await?,
    };
    job.on_start(&mut session).await;
    let ended = follow(&mut session, &bounds, &mut job).await;
    job.on_end(session, ended).await
}

async fn follow<J: GuestJob>(
    session: &mut Session,
    bounds: &Bounds<'_>,
    job: &mut J,
) -> Result<(), JobError> {
    let limits = session::SessionLimits {
        times: bounds.limits,
        result_files: bounds.result_files,
    };
    loop {
        let event = session.next(&limits, bounds.cancel).await?;
        if job.on_event(session, event).await?.is_break() {
            return Ok(());
        }
    }
}
