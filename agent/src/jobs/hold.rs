//! Guests that wait for a person: at a breakpoint of their build, or suspended after
//! it has failed, until somebody lets go of them, their time is over, or the host
//! needs what they take.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::BuildId;
use config::builds::{Build, Hold, HoldKind};
use jiff::Timestamp;
use store::{Snapshot, StoreError, Volume};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::blocking;
use crate::scheduler::ImageKey;
use crate::session::{self, Session};
use crate::state::agent_state::AgentState;
use tftp::server::{DeferredFile, Namespace};

/// Something that is held.
#[derive(Debug, Clone)]
pub struct Job {
    /// What it was built on and with.
    pub pair: ImageKey,
    /// Ends all of it.
    pub release: CancellationToken,
    /// Ends the guest; its snapshot stays.
    pub give_way: CancellationToken,
    /// Whether there is a guest.
    pub guest: bool,
}

/// What guests that wait are to be told, and those that are about to be held.
#[derive(Debug, Default)]
pub struct Desk {
    resumes: Mutex<BTreeMap<BuildId, DeferredFile>>,
    suspended: Mutex<BTreeMap<BuildId, Session>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Remembers how a build's guest is told to go on.
    pub fn expect(&self, id: BuildId, resume: DeferredFile) {
        lock(&self.resumes).insert(id, resume);
    }

    /// Forgets it again.
    pub fn forget(&self, id: BuildId) {
        lock(&self.resumes).remove(&id);
    }

    /// Tells a guest that waits at its breakpoint to go on.
    pub fn resume(&self, id: BuildId) {
        if let Some(resume) = lock(&self.resumes).get(&id) {
            resume.provide(": 1\n");
        }
    }

    /// Suspends the guest of a build that has failed, for [`Desk::take`]. One that
    /// cannot be suspended is ended.
    pub async fn suspend(&self, id: BuildId, session: Session) {
        match session.suspend().await {
            Ok(()) => {
                lock(&self.suspended).insert(id, session);
            }
            Err(error) => {
                warn!(
                    "the guest cannot be held: {}",
                    sys::error_report::chain(&error)
                );
                session.kill().await;
            }
        }
    }

    /// Ends one that was suspended.
    pub async fn end(&self, id: BuildId) {
        if let Some(session) = self.take(id) {
            session.kill().await;
        }
    }

    /// The guest that was suspended.
    pub fn take(&self, id: BuildId) -> Option<Session> {
        lock(&self.suspended).remove(&id)
    }
}

/// How long something may be held from now on.
pub fn until(agent: &AgentState) -> Timestamp {
    let limit = agent.settings.builds.hold_limit;
    Timestamp::now() + jiff::SignedDuration::try_from(limit).unwrap_or_default()
}

/// The same time on the other clock.
pub fn instant(until: Timestamp) -> Instant {
    let left = until.duration_since(Timestamp::now());
    Instant::now() + left.try_into().unwrap_or_default()
}

/// The builds whose guests or snapshots an earlier agent held. Those that are over
/// are let go of.
pub async fn recover(agent: &AgentState) -> Result<Vec<Build>, crate::records::RecordsError> {
    let mut held = Vec::new();
    for build in agent.records.held().await? {
        let there = volume_of(agent, &build).is_some();
        match build.interactive.held {
            Some(Hold { until, .. }) if until > Timestamp::now() && there => held.push(build),
            _ => record(agent, build.id, None).await,
        }
    }
    Ok(held)
}

/// The volume with the snapshot of a build, if there is one.
pub fn volume_of<'h>(agent: &'h AgentState, build: &Build) -> Option<&'h Volume> {
    let has_it = |volume: &&Volume| {
        let view = volume.look(&build.machine);
        let is_it =
            |it: &store::SnapshotView| it.tag == build.id.tag() && it.toolchain == build.toolchain;
        view.is_ok_and(|view| view.snapshots.iter().any(is_it))
    };
    agent.volumes.iter().find(has_it)
}

/// Goes on with what an earlier agent held, if it outlived the boot.
pub async fn take_up(agent: &Arc<AgentState>, build: Build) {
    let Some(volume) = volume_of(agent, &build).cloned() else {
        return record(agent, build.id, None).await;
    };
    let agent = Arc::clone(agent);
    let release = agent.stopping.child_token();
    let job = job(&build, &release);
    agent.with_jobs(|jobs| jobs.held.insert(build.id, job));
    let tasks = agent.tasks.clone();
    tasks.spawn(async move {
        let left = session::AdoptSpec {
            tag: build.id.to_string(),
            machine: build.machine.clone(),
            map: Namespace::new(0, 0),
            capture: crate::jobs::build::files::record(&agent, &agent.build_directory(build.id)),
            elapsed: std::time::Duration::ZERO,
            contacted: true,
        };
        let session = match Session::adopt(&agent.guests, left).await {
            Ok(session) => {
                agent.held.suspend(build.id, session).await;
                agent.held.take(build.id)
            }
            // Only its snapshot is left.
            Err(_) => None,
        };
        keep(&agent, &volume, build, session, release).await;
    });
}

fn job(build: &Build, release: &CancellationToken) -> Job {
    Job {
        pair: ImageKey::of(build),
        release: release.clone(),
        give_way: release.child_token(),
        guest: true,
    }
}

/// Holds the guest of a build that has failed, and its snapshot, until somebody lets
/// go of them or their time is over.
pub async fn keep(
    agent: &AgentState,
    volume: &Volume,
    build: Build,
    session: Option<Session>,
    release: CancellationToken,
) {
    let (id, until) = match build.interactive.held {
        Some(held) => (build.id, held.until),
        None => return,
    };
    let job = job(&build, &release);
    let give_way = job.give_way.clone();
    agent.with_jobs(|jobs| {
        jobs.builds.remove(&id);
        jobs.held.insert(id, job);
    });
    agent.wake.notify_one();
    let snapshot = hold_snapshot(volume, &build).await;
    if let Some(session) = session {
        info!(build = %id, %until, "the guest is held");
        tokio::select! {
            () = give_way.cancelled() => {}
            () = sleep_until(instant(until)) => {}
            _ = session.exited() => {}
        }
        if agent.leaving.is_cancelled() {
            return session.leave();
        }
        session.kill().await;
    } else if agent.leaving.is_cancelled() {
        return;
    }
    agent.with_jobs(|jobs| {
        if let Some(job) = jobs.held.get_mut(&id) {
            job.guest = false;
        }
    });
    if !release.is_cancelled() && until > Timestamp::now() && snapshot.is_ok() {
        let stay = HoldKind::Snapshot;
        record(agent, id, Some(Hold { kind: stay, until })).await;
        agent.wake.notify_one();
        tokio::select! {
            () = release.cancelled() => {}
            () = sleep_until(instant(until)) => {}
        }
        if agent.leaving.is_cancelled() {
            return;
        }
    }
    drop(snapshot);
    if let Err(error) = crate::jobs::build::snapshot::drop(volume, &build).await {
        warn!(build = %id, "cannot delete what was held: {}", sys::error_report::chain(&error));
    }
    record(agent, id, None).await;
    info!(build = %id, "nothing of the build is held any more");
    agent.with_jobs(|jobs| jobs.held.remove(&id));
    agent.wake.notify_one();
}

/// A lock on the snapshot of our own: the guest's goes with it.
async fn hold_snapshot(volume: &Volume, build: &Build) -> Result<Snapshot, StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || volume.take_up(&build.machine, &build.toolchain, &build.id.tag())).await
}

/// Records what is held of a build that has finished.
async fn record(agent: &AgentState, id: BuildId, held: Option<Hold>) {
    let saved = match agent.records.get(id).await {
        Ok(Some(mut build)) => {
            build.interactive.held = held;
            agent.records.save(&build).await
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = saved {
        warn!(build = %id, "cannot record what is held: {}", sys::error_report::chain(&error));
    }
}
