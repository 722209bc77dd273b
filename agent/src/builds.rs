//! Runs builds: a throw-away snapshot of a bootstrapped image for each, the task,
//! the result, the revisions of the packages, the record.

mod collect;
mod conclude;
pub(crate) mod files;
mod origin;
mod progress;
mod provenance;
pub(crate) mod snapshot;
mod upload;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::BuildId;
use config::builds::{Build, Held, Start, State, Stay};
use config::machine::{Machine, MachineError};
use config::task::{self, AtBreakpoint};
use futures_util::FutureExt;
use jiff::Timestamp;
use store::{Snapshot, StoreError, Volume};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::guest::Memory;
use crate::held;
use crate::host::{Host, Job};
use crate::reconcile::Pair;
use crate::records::RecordsError;
use crate::room;
use crate::session::{self, Ended, Happening, Session, SessionError};
use crate::tftp;

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
            Begin::New => start(host, volume, &mut build, cancel).await,
            Begin::Running => go_on(host, &mut build, cancel).await,
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

async fn start(
    host: &Host,
    volume: &Volume,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    // Counted before anything can fail, so that no failure is tried for ever.
    build.attempts += 1;
    build.not_before = None;
    let directory = host.build_directory(build.id);
    store::file::fresh_directory(&directory)?;
    store::file::fresh_directory(&directory.join(ARTIFACTS))?;
    build.enter(State::Starting, Timestamp::now());
    host.records.save(build).await?;
    let pair = Pair {
        machine: build.machine.clone(),
        toolchain: build.toolchain.clone(),
    };
    loop {
        let snapshot = snapshot::take(volume, build).await?;
        build.revision = origin::revision(volume, &snapshot)?;
        build.made = origin::made(snapshot.path());
        build.frozen = may_wake(host, build, &pair, snapshot.path());
        let attempt = attempt(host, build, snapshot, cancel).await;
        match attempt {
            Err(error) if build.frozen && is_doubt(&error, build.state) => {
                let why = crate::chain(&error);
                warn!("the frozen guest is given up, the build starts cold: {why}");
                host.frozen.evict(&pair, why);
                host.records.metrics().eviction();
            }
            ended => return ended,
        }
    }
}

/// Whether a build wakes the frozen guest of its image. Not when it failed before:
/// that could be the frozen guest's fault.
fn may_wake(host: &Host, build: &Build, pair: &Pair, snapshot: &Path) -> bool {
    let starting = host.frozen.look(&host.settings.guests, pair, snapshot);
    build.attempts <= 1 && starting.start == Start::Frozen
}

/// Whether a guest may have failed because it was woken and not started.
fn is_doubt(error: &AttemptError, state: State) -> bool {
    match error {
        AttemptError::Session(SessionError::Guest(_)) => true,
        AttemptError::Ended(Ended::Silent(_) | Ended::Exited { .. }) => state == State::Starting,
        _ => false,
    }
}

/// Runs a guest in a snapshot until its result is stored.
async fn attempt(
    host: &Host,
    build: &mut Build,
    snapshot: Arc<Snapshot>,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let text = std::fs::read_to_string(snapshot.path().join(config::machine::FILE))?;
    let machine = Machine::parse(&text)?;
    build.guest = origin::guest(host, &machine);
    let plan = session::Plan {
        tag: build.id.to_string(),
        snapshot,
        machine,
        map: map(host, build)?,
        durable: false,
        memory: if build.frozen {
            Memory::Frozen
        } else {
            Memory::Own
        },
        record: files::record(host, &host.build_directory(build.id)),
    };
    // Before it starts: whoever takes the guest up must know what it is.
    host.records.save(build).await?;
    let session = Session::start(host, plan).await?;
    finish(host, build, session, cancel).await
}

async fn go_on(
    host: &Host,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let heard = build.state > State::Starting;
    // It may have called while nobody listened: its time to be heard begins anew.
    let began = build.started.filter(|_| heard);
    let since = began.map(|began| Timestamp::now().duration_since(began));
    let left = session::Left {
        tag: build.id.to_string(),
        machine: build.machine.clone(),
        map: map(host, build)?,
        record: files::record(host, &host.build_directory(build.id)),
        since: since.unwrap_or_default().try_into().unwrap_or_default(),
        heard,
    };
    let session = Session::take_up(host, left).await?;
    finish(host, build, session, cancel).await
}

/// Waits for the result of a guest that runs, and stores it.
async fn finish(
    host: &Host,
    build: &mut Build,
    mut session: Session,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let held = build.life.hold || host.settings.builds.hold;
    let id = build.id;
    let waited = tokio::select! {
        waited = wait(host, build, &mut session, cancel) => waited,
        never = progress::follow(host, id) => match never {},
    };
    build.usage = session.usage();
    match waited {
        Ok(()) if held && !collect::is_good(&host.build_directory(id)) => {
            host.held.suspend(build.id, session).await;
            progress::note_all(host, id).await;
            let collected = collect::collect(host, build.id).await;
            if collected.is_err() {
                host.held.end(build.id).await;
            }
            Ok(collected?)
        }
        Ok(()) => {
            session.shut_down().await;
            progress::note_all(host, id).await;
            Ok(collect::collect(host, build.id).await?)
        }
        Err(error @ AttemptError::Ended(Ended::Late(_) | Ended::Quiet(_))) if held => {
            host.held.suspend(build.id, session).await;
            Err(error)
        }
        Err(AttemptError::Ended(Ended::Cancelled)) if host.leaving.is_cancelled() => {
            session.leave();
            Err(AttemptError::LeftRunning)
        }
        Err(error) => {
            session.kill().await;
            Err(error)
        }
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

/// What the guest of a build fetches, and where what it puts goes.
fn map(host: &Host, build: &Build) -> std::io::Result<tftp::Map> {
    let directory = host.build_directory(build.id);
    let (map, resume) = files::map(host, &files::task(host, build), &directory)?;
    if let Some(resume) = resume {
        host.held.expect(build.id, resume);
    }
    Ok(map)
}

async fn wait(
    host: &Host,
    build: &mut Build,
    session: &mut Session,
    cancel: &CancellationToken,
) -> Result<(), AttemptError> {
    let limits = session::Limits {
        start: if build.frozen {
            host.settings.guests.wake_limit
        } else {
            host.settings.builds.start_limit
        },
        silence: host.settings.builds.silence_limit,
        total: host.settings.builds.total_limit,
        last_put: &collect::RESULTS,
    };
    if let Some(held) = build.life.held {
        session.pause(held::instant(held.until));
    }
    loop {
        let happening = session.next(&limits, cancel).await?;
        match happening {
            Happening::Ready => continue,
            Happening::Breakpoint | Happening::Waited => {
                pause(host, build, session, &happening);
                host.records.save(build).await?;
                continue;
            }
            Happening::Done => build.enter(State::Storing, Timestamp::now()),
            Happening::FirstContact => {
                build.enter(State::Running, Timestamp::now());
                if let Some((start, seconds)) = build.start() {
                    info!(%start, seconds, "the guest has asked for its task");
                }
            }
        }
        build.message.clear();
        host.records.save(build).await?;
        if happening == Happening::Done {
            return Ok(());
        }
    }
}

/// Lets a guest wait at its breakpoint, or go on from there.
fn pause(host: &Host, build: &mut Build, session: &mut Session, happening: &Happening) {
    let path = host.build_directory(build.id).join(task::BREAKPOINT);
    let said = std::fs::read_to_string(path).unwrap_or_default();
    let waits = AtBreakpoint::parse(&said) == Ok(AtBreakpoint::Waiting);
    if *happening == Happening::Breakpoint && waits {
        let (stay, until) = (Stay::Breakpoint, held::until(host));
        info!(%until, "the guest waits for a person at its breakpoint");
        session.pause(held::instant(until));
        build.life.held = Some(Held { stay, until });
    } else {
        info!("the guest goes on from its breakpoint");
        host.held.resume(build.id);
        session.resume();
        build.life.held = None;
    }
}
