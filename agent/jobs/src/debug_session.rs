//! Debug sessions: a guest boots in a copy of a held build's snapshot, and a person types
//! on its console. The hold stays as it is. The copy is deleted when the connection ends,
//! and does not outlive the agent.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, GuestKind, HoldKind, Submitter};
use config::cache::CacheMode;
use config::machine::Machine;
use config::task::{Breakpoint, Preload, Task};
use config::{BuildId, CopyTag, ImageKey, NameError, Tag};
use guest::BootMode;
use jiff::Timestamp;
use planner::JobId;
use session::console::Console;
use session::{GuestEvent, Session, SessionError};
use store::{Snapshot, SnapshotSource, StoreError, Volume};
use sys::blocking::blocking;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, info, info_span, warn};

use super::build::{RESULTS, cache, files, hashserv};
use super::runner::{self, Bounds, GuestJob, GuestSource, JobError};
use super::{hold, limits, snapshot};
use state::paths::ARTIFACTS;
use state::{AgentState, DebugJob, ImageFacts};

/// The time for which a debug session waits for admission.
const ADMISSION_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason for which a debug session does not start.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The build is not held.
    #[error("nothing is held of build {0}, so there is nothing to copy; `--hold` keeps what fails")]
    NotHeld(BuildId),
    /// The build can never be held.
    #[error(
        "build {0} ran in a container, which is never held; `buildhost login` stops one at a breakpoint"
    )]
    Container(BuildId),
    /// The host has no resources for it, or is drained.
    #[error("no copy of build {0} boots now: it would wait {1}")]
    Rejected(BuildId, String),
    /// The agent stops, or the session was evicted.
    #[error("the copy of build {0} was ended before it had booted")]
    Ended(BuildId),
    /// The machine's directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The guest or its files.
    #[error("the guest in the copy of a build cannot be brought up")]
    Job(#[from] JobError),
}

/// A connection with the console of a debug session. Dropping it ends the session.
#[derive(Debug)]
pub struct DebugConsole {
    /// The console; nobody else types on it.
    pub console: Console,
    _end: DropGuard,
}

/// Starts a debug session in a copy of a held build, and returns its console once its
/// guest boots.
///
/// # Errors
/// When the build is not held, the host has no resources, or the guest cannot be started.
pub async fn attach(
    agent: &Arc<AgentState>,
    build: Build,
    submitter: Submitter,
) -> Result<DebugConsole, AttachError> {
    let id = build.id;
    if build.guest == Some(GuestKind::Nspawn) {
        return Err(AttachError::Container(id));
    }
    let kind = build.interactive.held.map(|held| held.kind);
    if !matches!(kind, Some(HoldKind::Guest | HoldKind::Snapshot)) {
        return Err(AttachError::NotHeld(id));
    }
    let volume = snapshot::volume(agent, &build).await?;
    let volume = volume.ok_or(AttachError::NotHeld(id))?;
    let (sender, console) = oneshot::channel();
    let (tasks, agent) = (agent.tasks.clone(), Arc::clone(agent));
    let task = async move { run(&agent, &volume, build, submitter, sender).await };
    tasks.spawn(task.instrument(info_span!("attach", build = %id)));
    // A task that panicked sends nothing.
    console.await.unwrap_or(Err(AttachError::Ended(id)))
}

/// Runs a debug session from its admission to the deletion of the copy.
async fn run(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: Build,
    submitter: Submitter,
    console: oneshot::Sender<Result<DebugConsole, AttachError>>,
) {
    let end = agent.stopping.child_token();
    let (slot, admission) = SlotGuard::request(agent, &build, submitter, end.clone());
    let tag = slot.tag;
    let session = match admitted(build.id, admission, &end).await {
        Ok(()) => boot(agent, volume, &build, tag, &end, console).await,
        Err(error) => {
            let _ = console.send(Err(error));
            Ok(())
        }
    };
    if let Err(error) = session {
        let error = &error as &dyn Error;
        warn!(session = %tag, error, "a debug session failed");
    }
    if let Some(disk) = agent.jobs.eviction(&JobId::Copy(tag)) {
        warn!(session = %tag, directory = %disk.directory.display(), "evicted a debug session: the directory is nearly full");
    }
    if let Err(error) = clean(agent, volume, &build, tag).await {
        let error = &error as &dyn Error;
        warn!(session = %tag, error, "cannot delete the copy of a debug session");
    }
}

/// The entry of a debug session in the job table; removed when this is dropped.
struct SlotGuard<'a> {
    agent: &'a AgentState,
    tag: CopyTag,
}

impl<'a> SlotGuard<'a> {
    /// Adds an entry that waits for admission. The scheduler sends its answer.
    fn request(
        agent: &'a AgentState,
        build: &Build,
        submitter: Submitter,
        cancel: CancellationToken,
    ) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (sender, admission) = oneshot::channel();
        let tag = agent.next_copy(build.id);
        let job = DebugJob {
            key: ImageKey::of(build),
            resources: build.resources.clone(),
            submitter,
            since: Timestamp::now(),
            cancel,
            admission: Some(sender),
            evicted: None,
        };
        agent.jobs.with(|jobs| jobs.debug_sessions.insert(tag, job));
        agent.wake.notify_one();
        (Self { agent, tag }, admission)
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        let tag = self.tag;
        self.agent
            .jobs
            .with(|jobs| jobs.debug_sessions.remove(&tag));
        self.agent.wake.notify_one();
    }
}

/// Waits for the scheduler's answer.
async fn admitted(
    id: BuildId,
    admission: oneshot::Receiver<Result<(), String>>,
    end: &CancellationToken,
) -> Result<(), AttachError> {
    let answer = tokio::select! {
        answer = timeout(ADMISSION_TIMEOUT, admission) => answer,
        () = end.cancelled() => return Err(AttachError::Ended(id)),
    };
    match answer {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(reason))) => Err(AttachError::Rejected(id, reason)),
        Ok(Err(_)) => Err(AttachError::Ended(id)),
        Err(_) => {
            let reason = "for a held guest that does not give way".to_owned();
            Err(AttachError::Rejected(id, reason))
        }
    }
}

/// Copies the snapshot of the build, and runs a guest in the copy until the session ends.
/// `console` receives the console, or the error that keeps the guest from booting.
async fn boot(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &Build,
    tag: CopyTag,
    end: &CancellationToken,
    console: oneshot::Sender<Result<DebugConsole, AttachError>>,
) -> Result<(), JobError> {
    let directory = agent.paths.debug_session(tag);
    let mut job = DebugGuest {
        agent,
        tag,
        directory,
        end,
        console: Some(console),
    };
    let started = match prepare(agent, volume, build, tag).await {
        Ok((spec, machine)) => {
            let bounds = Bounds {
                limits: limits::of_build(&agent.settings(), build, &machine),
                result_files: &RESULTS,
                cancel: end,
            };
            runner::run(agent, GuestSource::Start(Box::new(spec)), bounds, &mut job).await
        }
        Err(error) => Err(error),
    };
    match (started, job.console.take()) {
        (Err(error), Some(console)) => {
            let _ = console.send(Err(AttachError::Job(error)));
            Ok(())
        }
        (ended, _) => ended,
    }
}

/// Copies the snapshot and the task of the build.
async fn prepare(
    agent: &Arc<AgentState>,
    volume: &Volume,
    build: &Build,
    tag: CopyTag,
) -> Result<(session::SessionSpec, Machine), JobError> {
    let directory = agent.paths.debug_session(tag);
    let (agent, volume, build) = (Arc::clone(agent), volume.clone(), build.clone());
    blocking(move || {
        let snapshot = copy_snapshot(&volume, &build, tag)?;
        let machine = ImageFacts::read(snapshot.path()).machine;
        let machine = machine.map_err(JobError::Manifest)?;
        let machine = build.resources.applied_to(&machine);
        if build.restored {
            guest::checkpoint::convert_to_cold(snapshot.path(), &machine)?;
        }
        sys::file::fresh_directory(&directory)?;
        sys::file::fresh_directory(&directory.join(ARTIFACTS))?;
        let task = files::task(&agent, &build);
        let task = Task {
            interactive: Some(Breakpoint::Attach),
            hold: false,
            // They were in the memory of the guest, and the copy is of its disk.
            secrets: Vec::new(),
            cache: task.cache.map(|_| CacheMode::Read),
            ..task
        };
        let spec = session::SessionSpec {
            tag: tag.to_string(),
            snapshot: Arc::new(snapshot),
            machine: machine.clone(),
            files: files::map(&agent, &task, &directory)?.0,
            durable: false,
            boot: BootMode::Cold,
            shared_memory: None,
            capture: files::record(&agent, &directory),
            secrets: session::GuestSecrets::default(),
            cache: cache::of_debug_session(&agent, &build),
            preload: Preload::default(),
            hashserv: hashserv::of_debug_session(&agent, &build),
            commands: None,
            deadline: None,
            copy: None,
        };
        Ok((spec, machine))
    })
    .await
}

fn copy_snapshot(volume: &Volume, build: &Build, tag: CopyTag) -> Result<Snapshot, JobError> {
    let tag = snapshot_tag(tag)?;
    // An earlier agent may have left a copy with this name.
    volume.delete_snapshot(&build.machine, &build.toolchain, &tag)?;
    let held = SnapshotSource::Snapshot(build.id.tag());
    Ok(volume.snapshot(&build.machine, &held, &build.toolchain, &tag)?)
}

fn snapshot_tag(tag: CopyTag) -> Result<Tag, NameError> {
    tag.to_string().parse()
}

/// The guest of a debug session.
struct DebugGuest<'a> {
    agent: &'a Arc<AgentState>,
    tag: CopyTag,
    directory: PathBuf,
    end: &'a CancellationToken,
    /// Receives the console once the guest boots.
    console: Option<oneshot::Sender<Result<DebugConsole, AttachError>>>,
}

impl GuestJob for &mut DebugGuest<'_> {
    type Output = ();

    async fn on_start(&mut self, _session: &mut Session) {
        let console = self.agent.guests.consoles.of(&self.tag.to_string());
        let console = console.map(|console| DebugConsole {
            console,
            _end: self.end.clone().drop_guard(),
        });
        let console = console.ok_or(AttachError::Job(SessionError::Gone.into()));
        if let Some(sender) = self.console.take() {
            // A requester that has left drops the console, which ends the session.
            let _ = sender.send(console);
        }
        info!(session = %self.tag, "a debug session starts");
    }

    async fn on_event(
        &mut self,
        session: &mut Session,
        event: GuestEvent,
    ) -> Result<ControlFlow<()>, JobError> {
        match event {
            GuestEvent::Ready | GuestEvent::FirstContact => {}
            GuestEvent::Breakpoint => {
                let directory = self.directory.clone();
                if blocking(move || files::waits(&directory)).await {
                    session.pause(hold::instant(hold::until(self.agent)));
                } else {
                    session.resume();
                }
            }
            GuestEvent::ResultReceived | GuestEvent::PauseExpired => {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn on_end(self, session: Session, ended: Result<(), JobError>) -> Result<(), JobError> {
        session.kill().await;
        match ended {
            Err(error) if !error.is_cancelled() => return Err(error),
            _ => info!(session = %self.tag, "a debug session ended"),
        }
        Ok(())
    }
}

/// Deletes the copy and the files of a debug session.
async fn clean(
    agent: &AgentState,
    volume: &Volume,
    build: &Build,
    tag: CopyTag,
) -> Result<(), JobError> {
    let directory = agent.paths.debug_session(tag);
    let (volume, build, tag) = (volume.clone(), build.clone(), snapshot_tag(tag)?);
    blocking(move || {
        let deleted = volume.delete_snapshot(&build.machine, &build.toolchain, &tag);
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        deleted.map(drop).map_err(JobError::from)
    })
    .await
}
