//! Copies of builds that failed, for people: what is held of a build is copied, a
//! guest of its own boots in the copy, and both go when the person leaves.
//!
//! What is held stays as it is. A copy does not outlive the agent: whoever types in it
//! is connected with it by us alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, GuestKind, HoldKind, Submitter};
use config::limits::Limits;
use config::machine::{Machine, MachineError};
use config::task::{Breakpoint, Task};
use config::{BuildId, NameError, Tag};
use jiff::Timestamp;
use store::{Origin, Snapshot, StoreError, Volume};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, info, info_span, warn};

use crate::blocking;
use crate::jobs::build::{files, limits};
use crate::jobs::hold;
use crate::scheduler::ImageKey;
use crate::session::console::Console;
use crate::session::{self, GuestEvent, GuestFailure, Session, SessionError};
use crate::state::agent_state::{AgentState, Job};
use crate::state::guest_tag::CopyTag;
use guest::{self, BootMode};

/// How long somebody waits for room on the host.
const ROOM_LIMIT: Duration = Duration::from_secs(30);

/// Why nobody can look into a copy.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is nothing to copy.
    #[error("nothing is held of build {0}, so there is nothing to copy; `--hold` keeps what fails")]
    NotHeld(BuildId),
    /// There never is anything to copy.
    #[error(
        "build {0} ran in a container, which is never held; `machinectl login` stops one at a breakpoint"
    )]
    Container(BuildId),
    /// The host has no room, or is drained.
    #[error("no copy of build {0} boots now: it would wait {1}")]
    Refused(BuildId, String),
    /// The agent stops, or the host needs what the copy takes.
    #[error("the copy of build {0} was ended before it had booted")]
    Ended(BuildId),
    /// The copy.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of the copy or of ours.
    #[error("cannot prepare a copy of what is held")]
    File(#[from] std::io::Error),
    /// The machine's manifest.
    #[error("the manifest of the copy cannot be used")]
    Machine(#[from] MachineError),
    /// Its guest.
    #[error("the guest in the copy cannot be brought up")]
    Session(#[from] SessionError),
}

/// A copy that somebody looks into, or is about to.
#[derive(Debug)]
pub struct Attached {
    /// What the build was built on and with.
    pub pair: ImageKey,
    /// Who looks into it.
    pub by: Submitter,
    /// Since when.
    pub since: Timestamp,
    /// Ends it.
    pub end: CancellationToken,
    /// Tells whoever waits for room that there is some, or what there is none of.
    pub turn: Option<oneshot::Sender<Result<(), String>>>,
}

impl Attached {
    /// Whether there is room for it, so that its guest boots or runs.
    pub fn has_begun(&self) -> bool {
        self.turn.is_none()
    }
}

/// A person's visit to a copy. Dropping this ends the copy.
#[derive(Debug)]
pub struct Visit {
    /// The console; nobody else types on it.
    pub console: Console,
    _leave: DropGuard,
}

/// The directory with what the guests of copies put, and what is recorded of them.
pub fn directory(agent: &AgentState) -> PathBuf {
    agent.settings.paths.state.join("attached")
}

/// Boots a copy of what is held of a build, and returns when its console is there.
///
/// # Errors
/// When nothing is held, the host has no room, or a part of it fails.
pub async fn attach(
    agent: &Arc<AgentState>,
    build: Build,
    by: Submitter,
) -> Result<Visit, AttachError> {
    let id = build.id;
    if build.guest == Some(GuestKind::Nspawn) {
        return Err(AttachError::Container(id));
    }
    let stay = build.interactive.held.map(|held| held.kind);
    if !matches!(stay, Some(HoldKind::Guest | HoldKind::Snapshot)) {
        return Err(AttachError::NotHeld(id));
    }
    let (seen, of) = (Arc::clone(agent), build.clone());
    let volume = blocking(move || hold::volume_of(&seen, &of).cloned()).await;
    let volume = volume.ok_or(AttachError::NotHeld(id))?;
    let (told, answer) = oneshot::channel();
    let (tasks, agent) = (agent.tasks.clone(), Arc::clone(agent));
    let task = async move { run(&agent, &volume, &build, by, told).await };
    tasks.spawn(task.instrument(info_span!("attach", build = %id)));
    // Nothing is told by a task that has ended badly.
    answer.await.unwrap_or(Err(AttachError::Ended(id)))
}

/// Boots the copy, tells whoever waits for it, and takes it away at the end.
async fn run(
    agent: &AgentState,
    volume: &Volume,
    build: &Build,
    by: Submitter,
    told: oneshot::Sender<Result<Visit, AttachError>>,
) {
    let end = agent.stopping.child_token();
    let (place, turn) = Place::take(agent, build, by, end.clone());
    let copied = async {
        wait(build.id, turn, &end).await?;
        boot(agent, volume, build, place.tag).await
    };
    match copied.await {
        Ok(session) => {
            let console = agent.guests.consoles.of(&place.tag.to_string());
            let visit = console.map(|console| Visit {
                console,
                _leave: end.clone().drop_guard(),
            });
            // Whoever has gone meanwhile drops what is told, which ends it.
            let _ = told.send(visit.ok_or(SessionError::Gone.into()));
            info!(copy = %place.tag, "somebody is attached to a copy of what is held");
            let limits = limits::of(agent, build);
            let ended = stay(agent, session, limits, &files_of(agent, place.tag), &end).await;
            info!(copy = %place.tag, "the copy goes: {ended}");
        }
        Err(error) => {
            warn!(copy = %place.tag, "cannot attach: {}", sys::error_report::chain(&error));
            let _ = told.send(Err(error));
        }
    }
    if let Some(full) = agent.was_ended_for_room(&Job::Copy(place.tag)) {
        warn!(copy = %place.tag, "it was ended because {} is nearly full", full.display());
    }
    if let Err(error) = clean(agent, volume, build, place.tag).await {
        warn!(copy = %place.tag, "cannot delete the copy: {}", sys::error_report::chain(&error));
    }
}

/// A copy's place among what runs; given up when dropped.
struct Place<'h> {
    agent: &'h AgentState,
    tag: CopyTag,
}

impl<'h> Place<'h> {
    /// Takes a place, and says where it is heard whether there is room for it.
    fn take(
        agent: &'h AgentState,
        build: &Build,
        by: Submitter,
        end: CancellationToken,
    ) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (sender, turn) = oneshot::channel();
        let tag = agent.next_copy(build.id);
        let attached = Attached {
            pair: ImageKey::of(build),
            by,
            since: Timestamp::now(),
            end,
            turn: Some(sender),
        };
        agent.with_jobs(|jobs| jobs.attached.insert(tag, attached));
        agent.wake.notify_one();
        (Self { agent, tag }, turn)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.agent.with_jobs(|jobs| jobs.attached.remove(&self.tag));
        self.agent.wake.notify_one();
    }
}

/// Waits until the reconciler has found room, or none.
async fn wait(
    id: BuildId,
    turn: oneshot::Receiver<Result<(), String>>,
    end: &CancellationToken,
) -> Result<(), AttachError> {
    let told = tokio::select! {
        told = timeout(ROOM_LIMIT, turn) => told,
        () = end.cancelled() => return Err(AttachError::Ended(id)),
    };
    match told {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(words))) => Err(AttachError::Refused(id, words)),
        Ok(Err(_)) => Err(AttachError::Ended(id)),
        Err(_) => {
            let words = "for a held guest that does not give way".to_owned();
            Err(AttachError::Refused(id, words))
        }
    }
}

/// What the guest of a copy puts, and what is recorded of it.
fn files_of(agent: &AgentState, tag: CopyTag) -> PathBuf {
    directory(agent).join(tag.to_string())
}

/// Copies what is held and boots a guest in the copy.
async fn boot(
    agent: &AgentState,
    volume: &Volume,
    build: &Build,
    tag: CopyTag,
) -> Result<Session, AttachError> {
    let snapshot = copy(volume, build, tag).await?;
    let text = std::fs::read_to_string(snapshot.path().join(config::machine::FILE))?;
    let machine = Machine::parse(&text)?;
    if build.restored {
        guest::thaw(snapshot.path(), &machine)?;
    }
    let directory = files_of(agent, tag);
    sys::file::fresh_directory(&directory)?;
    sys::file::fresh_directory(&directory.join(crate::jobs::build::ARTIFACTS))?;
    let task = Task {
        interactive: Some(Breakpoint::Attach),
        hold: false,
        ..files::task(agent, build)
    };
    let plan = session::SessionSpec {
        tag: tag.to_string(),
        snapshot: Arc::new(snapshot),
        machine,
        map: files::map(agent, &task, &directory)?.0,
        durable: false,
        boot: BootMode::Cold,
        capture: files::record(agent, &directory),
    };
    Ok(Session::start(&agent.guests, plan).await?)
}

async fn copy(volume: &Volume, build: &Build, tag: CopyTag) -> Result<Snapshot, AttachError> {
    let (volume, build, tag) = (volume.clone(), build.clone(), name(tag)?);
    blocking(move || {
        // An agent before us may have left one of this name.
        volume.drop_snapshot(&build.machine, &build.toolchain, &tag)?;
        let held = Origin::Snapshot(build.id.tag());
        Ok(volume.snapshot(&build.machine, &held, &build.toolchain, &tag)?)
    })
    .await
}

/// The name of a copy among the snapshots.
fn name(tag: CopyTag) -> Result<Tag, NameError> {
    tag.to_string().parse()
}

/// Waits until the person has left, the guest has ended or its time is over; ends it.
async fn stay(
    agent: &AgentState,
    mut session: Session,
    limits: Limits,
    directory: &Path,
    end: &CancellationToken,
) -> String {
    let limits = session::SessionLimits {
        times: limits,
        result_files: &crate::jobs::build::RESULTS,
    };
    let ended = loop {
        match session.next(&limits, end).await {
            Ok(GuestEvent::Breakpoint) if files::waits(directory) => {
                session.pause(hold::instant(hold::until(agent)));
            }
            Ok(GuestEvent::Breakpoint) => session.resume(),
            Ok(GuestEvent::Ready | GuestEvent::FirstContact) => {}
            Ok(GuestEvent::ResultReceived) => break "its shell has ended".to_owned(),
            Ok(GuestEvent::PauseExpired) => break "its time is over".to_owned(),
            Err(GuestFailure::Cancelled) => break "nobody is attached any more".to_owned(),
            Err(ended) => break ended.to_string(),
        }
    };
    session.kill().await;
    ended
}

/// Takes away what there was of a copy.
async fn clean(
    agent: &AgentState,
    volume: &Volume,
    build: &Build,
    tag: CopyTag,
) -> Result<(), AttachError> {
    let directory = files_of(agent, tag);
    let (volume, build, tag) = (volume.clone(), build.clone(), name(tag)?);
    blocking(move || {
        let dropped = volume.drop_snapshot(&build.machine, &build.toolchain, &tag);
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        dropped.map(|_| ()).map_err(AttachError::from)
    })
    .await
}
