//! One attempt at a build: its guest, from the start or from where an earlier agent
//! left it, until the result is stored.

use std::path::Path;
use std::sync::Arc;

use config::builds::{Build, Hold, HoldKind, StartKind, State};
use config::limits::Limits;
use config::machine::Machine;
use jiff::Timestamp;
use store::{Snapshot, Volume};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::collect::{self, Collected};
use super::{ARTIFACTS, AttemptError, files, inputs, limits, progress, snapshot};
use crate::jobs::hold;
use crate::scheduler::ImageKey;
use crate::session::{self, GuestEvent, GuestFailure, Session, SessionError};
use crate::state::agent_state::AgentState;
use guest::BootMode;

/// Starts a guest for a build, cold when the frozen one cannot be woken, and goes on
/// until its result is stored.
pub(super) async fn start(
    agent: &AgentState,
    volume: &Volume,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    // Counted before anything can fail, so that no failure is tried for ever.
    build.attempts += 1;
    build.not_before = None;
    let directory = agent.build_directory(build.id);
    sys::file::fresh_directory(&directory)?;
    sys::file::fresh_directory(&directory.join(ARTIFACTS))?;
    build.enter(State::Starting, Timestamp::now())?;
    agent.records.save(build).await?;
    let pair = ImageKey::of(build);
    loop {
        let snapshot = snapshot::take(volume, build).await?;
        build.revision = inputs::revision(volume, &snapshot)?;
        build.inputs = inputs::made(snapshot.path());
        build.restored = may_wake(agent, build, &pair, snapshot.path());
        let attempt = attempt(agent, build, snapshot, cancel).await;
        match attempt {
            Err(error) if build.restored && is_doubt(&error, build.state) => {
                let why = sys::error_report::chain(&error);
                warn!("the frozen guest is given up, the build starts cold: {why}");
                agent.frozen.evict(&pair, why);
                agent.records.metrics().eviction();
            }
            ended => return ended,
        }
    }
}

/// Whether a build wakes the frozen guest of its image. Not when it failed before:
/// that could be the frozen guest's fault.
fn may_wake(agent: &AgentState, build: &Build, pair: &ImageKey, snapshot: &Path) -> bool {
    let starting = agent.frozen.look(&agent.settings.guests, pair, snapshot);
    build.attempts <= 1 && starting.start == StartKind::Restored
}

/// Whether a guest may have failed because it was woken and not started.
fn is_doubt(error: &AttemptError, state: State) -> bool {
    match error {
        AttemptError::Session(SessionError::Guest(_)) => true,
        AttemptError::Ended(GuestFailure::StartTimeout(_) | GuestFailure::Exited { .. }) => {
            state == State::Starting
        }
        _ => false,
    }
}

/// Runs a guest in a snapshot until its result is stored.
async fn attempt(
    agent: &AgentState,
    build: &mut Build,
    snapshot: Arc<Snapshot>,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let text = std::fs::read_to_string(snapshot.path().join(config::machine::FILE))?;
    let machine = Machine::parse(&text)?;
    build.guest = inputs::guest(agent, &machine);
    let plan = session::SessionSpec {
        tag: build.id.to_string(),
        snapshot,
        machine,
        map: map(agent, build)?,
        durable: false,
        boot: if build.restored {
            BootMode::Restore
        } else {
            BootMode::Cold
        },
        capture: files::record(agent, &agent.build_directory(build.id)),
    };
    // Before it starts: whoever takes the guest up must know what it is.
    agent.records.save(build).await?;
    let session = Session::start(&agent.guests, plan).await?;
    finish(agent, build, session, cancel).await
}

/// Goes on with the guest that an earlier agent started.
pub(super) async fn go_on(
    agent: &AgentState,
    build: &mut Build,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let heard = build.state > State::Starting;
    // It may have called while nobody listened: its time to be heard begins anew.
    let began = build.started.filter(|_| heard);
    let since = began.map(|began| Timestamp::now().duration_since(began));
    let left = session::AdoptSpec {
        tag: build.id.to_string(),
        machine: build.machine.clone(),
        map: map(agent, build)?,
        capture: files::record(agent, &agent.build_directory(build.id)),
        elapsed: since.unwrap_or_default().try_into().unwrap_or_default(),
        contacted: heard,
    };
    let session = Session::adopt(&agent.guests, left).await?;
    finish(agent, build, session, cancel).await
}

/// Waits for the result of a guest that runs, and stores it.
async fn finish(
    agent: &AgentState,
    build: &mut Build,
    mut session: Session,
    cancel: &CancellationToken,
) -> Result<Collected, AttemptError> {
    let held = build.interactive.hold || agent.settings.builds.hold_always;
    let id = build.id;
    let waited = tokio::select! {
        waited = wait(agent, build, &mut session, cancel) => waited,
        never = progress::follow(agent, id) => match never {},
    };
    build.usage = session.usage().await;
    match waited {
        Ok(()) if held && !collect::is_good(&agent.build_directory(id)) => {
            agent.held.suspend(build.id, session).await;
            progress::note_all(agent, id).await;
            let collected = collect::collect(agent, build.id).await;
            if collected.is_err() {
                agent.held.end(build.id).await;
            }
            Ok(collected?)
        }
        Ok(()) => {
            session.shut_down().await;
            progress::note_all(agent, id).await;
            Ok(collect::collect(agent, build.id).await?)
        }
        Err(
            error @ AttemptError::Ended(
                GuestFailure::TotalTimeout(_) | GuestFailure::IdleTimeout(_),
            ),
        ) if held => {
            agent.held.suspend(build.id, session).await;
            Err(error)
        }
        Err(AttemptError::Ended(GuestFailure::Cancelled)) if agent.leaving.is_cancelled() => {
            session.leave();
            Err(AttemptError::LeftRunning)
        }
        Err(error) => {
            session.kill().await;
            Err(error)
        }
    }
}

/// What the guest of a build fetches, and where what it puts goes.
fn map(agent: &AgentState, build: &Build) -> std::io::Result<tftp::server::Namespace> {
    let directory = agent.build_directory(build.id);
    let (map, resume) = files::map(agent, &files::task(agent, build), &directory)?;
    if let Some(resume) = resume {
        agent.held.expect(build.id, resume);
    }
    Ok(map)
}

async fn wait(
    agent: &AgentState,
    build: &mut Build,
    session: &mut Session,
    cancel: &CancellationToken,
) -> Result<(), AttemptError> {
    let own = limits::of(agent, build);
    let wake = Limits {
        start: agent.settings.guests.restore_limit,
        ..own
    };
    let limits = session::SessionLimits {
        times: if build.restored { wake } else { own },
        result_files: &collect::RESULTS,
    };
    if let Some(held) = build.interactive.held {
        session.pause(hold::instant(held.until));
    }
    loop {
        let happening = session.next(&limits, cancel).await?;
        match happening {
            GuestEvent::Ready => continue,
            GuestEvent::Breakpoint | GuestEvent::PauseExpired => {
                pause(agent, build, session, &happening);
                agent.records.save(build).await?;
                continue;
            }
            GuestEvent::ResultReceived => build.enter(State::Storing, Timestamp::now())?,
            GuestEvent::FirstContact => {
                build.enter(State::Running, Timestamp::now())?;
                if let Some((start, seconds)) = build.startup() {
                    info!(%start, seconds, "the guest has asked for its task");
                }
            }
        }
        build.message.clear();
        agent.records.save(build).await?;
        if happening == GuestEvent::ResultReceived {
            return Ok(());
        }
    }
}

/// Lets a guest wait at its breakpoint, or go on from there.
fn pause(agent: &AgentState, build: &mut Build, session: &mut Session, happening: &GuestEvent) {
    let waits = files::waits(&agent.build_directory(build.id));
    if *happening == GuestEvent::Breakpoint && waits {
        let (stay, until) = (HoldKind::Breakpoint, hold::until(agent));
        info!(%until, "the guest waits for a person at its breakpoint");
        session.pause(hold::instant(until));
        build.interactive.held = Some(Hold { kind: stay, until });
    } else {
        info!("the guest goes on from its breakpoint");
        agent.held.resume(build.id);
        session.resume();
        build.interactive.held = None;
    }
}
