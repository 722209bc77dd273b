//! Holds: the guest and the snapshot of a failed build are kept for debugging until they
//! are released, their time ends, or the host needs what they take.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, Hold, HoldKind};
use config::{BuildId, ImageKey};
use jiff::Timestamp;
use records::RecordsError;
use session::Session;
use store::{Snapshot, StoreError, Volume};
use sys::blocking::blocking;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::build::{files, secrets};
use super::snapshot;
use state::{AgentState, HoldJob};

/// Suspends a guest that is to be held; its auxiliary guests end. One that cannot be suspended is
/// killed.
pub(super) async fn suspend(mut session: Session) -> Option<Session> {
    session.end_auxiliaries().await;
    match session.suspend().await {
        Ok(()) => Some(session),
        Err(error) => {
            warn!(error = &error as &dyn Error, "cannot hold the guest");
            session.kill().await;
            None
        }
    }
}

/// Returns the end of a hold that starts now.
pub(super) fn until(agent: &AgentState) -> Timestamp {
    let limit = agent.settings().builds.hold_limit;
    Timestamp::now() + jiff::SignedDuration::try_from(limit).unwrap_or_default()
}

/// Converts a time to the monotonic clock.
pub(super) fn instant(until: Timestamp) -> Instant {
    let left = until.duration_since(Timestamp::now());
    Instant::now() + left.try_into().unwrap_or_default()
}

/// Returns the builds that an earlier agent held and whose snapshots exist. Holds that
/// have ended are removed from the records.
///
/// # Errors
/// When the records cannot be read.
pub async fn recover(agent: &AgentState) -> Result<Vec<Build>, RecordsError> {
    let mut holds = Vec::new();
    for build in agent.records.held().await? {
        let until = build.interactive.held.map(|held| held.until);
        let is_valid = until.is_some_and(|until| until > Timestamp::now());
        if is_valid && snapshot::volume_or_log(agent, &build).await.is_some() {
            holds.push(build);
        } else {
            record(agent, build.id, None).await;
        }
    }
    Ok(holds)
}

/// Adopts a hold of an earlier agent, if its snapshot was not cleaned away meanwhile.
pub async fn adopt(agent: &Arc<AgentState>, build: Build) {
    let Some(volume) = snapshot::volume_or_log(agent, &build).await else {
        return record(agent, build.id, None).await;
    };
    let release = agent.stopping.child_token();
    register(agent, &build, &release);
    let agent = Arc::clone(agent);
    let tasks = agent.tasks.clone();
    tasks.spawn(async move {
        let secrets = secrets::of_build(&agent, &build).await;
        let spec = session::AdoptSpec {
            tag: build.id.to_string(),
            machine: build.machine.clone(),
            files: tftp::server::Namespace::new(0, 0),
            capture: files::record(&agent, &agent.paths.build(build.id)),
            secrets: secrets.as_ref().cloned().unwrap_or_default(),
            cache: None,
            hashserv: None,
            commands: None,
            elapsed: Duration::ZERO,
            contacted: true,
            fork: None,
            // They end when a guest is suspended.
            auxiliaries: Vec::new(),
        };
        let session = match Session::adopt(&agent.guests, spec).await {
            Ok(session) if secrets.is_ok() => suspend(session).await,
            // What is not known cannot be masked any more.
            Ok(session) => {
                session.kill().await;
                None
            }
            // Only the snapshot is left.
            Err(_) => None,
        };
        run(&agent, &volume, build, session, release).await;
    });
}

/// Moves a build from the running jobs to the holds.
fn register(agent: &AgentState, build: &Build, release: &CancellationToken) -> CancellationToken {
    let evict = release.child_token();
    let hold = HoldJob {
        key: ImageKey::of(build),
        resources: build.resources.clone(),
        release: release.clone(),
        evict: evict.clone(),
        has_guest: true,
    };
    agent.jobs.with(|jobs| {
        jobs.builds.remove(&build.id);
        jobs.holds.insert(build.id, hold);
    });
    agent.wake.notify_one();
    evict
}

/// Holds the guest and the snapshot of a failed build until both are released. Does
/// nothing for a build that is not held.
pub(super) async fn run(
    agent: &AgentState,
    volume: &Volume,
    build: Build,
    guest: Option<Session>,
    release: CancellationToken,
) {
    let Some(Hold { until, .. }) = build.interactive.held else {
        return;
    };
    let id = build.id;
    let evict = register(agent, &build, &release);
    let snapshot = lock_snapshot(volume, &build).await;
    if let Some(session) = guest {
        info!(build = %id, %until, "holding the guest of a failed build");
        tokio::select! {
            () = evict.cancelled() => {}
            () = sleep_until(instant(until)) => {}
            _ = session.exited() => {}
        }
        if agent.leaving.is_cancelled() {
            return session.leave().await;
        }
        session.kill().await;
    } else if agent.leaving.is_cancelled() {
        return;
    }
    agent.jobs.with(|jobs| {
        if let Some(hold) = jobs.holds.get_mut(&id) {
            hold.has_guest = false;
        }
    });
    if !release.is_cancelled() && until > Timestamp::now() && snapshot.is_ok() {
        let kind = HoldKind::Snapshot;
        record(agent, id, Some(Hold { kind, until })).await;
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
    if let Err(error) = snapshot::delete(volume, &build).await {
        let error = &error as &dyn Error;
        warn!(build = %id, error, "cannot delete the snapshot of a held build");
    }
    record(agent, id, None).await;
    info!(build = %id, "released a held build");
    agent.jobs.with(|jobs| jobs.holds.remove(&id));
    agent.wake.notify_one();
}

/// Takes a lock of the hold's own on the snapshot: the guest's ends with the guest.
async fn lock_snapshot(volume: &Volume, build: &Build) -> Result<Snapshot, StoreError> {
    let (volume, build) = (volume.clone(), build.clone());
    blocking(move || volume.adopt_snapshot(&build.machine, &build.toolchain, &build.id.tag())).await
}

/// Records the hold of a build that has finished.
async fn record(agent: &AgentState, id: BuildId, held: Option<Hold>) {
    let change = move |build: &mut Build| {
        build.interactive.held = held;
        true
    };
    if let Err(error) = agent.records.change(id, change).await {
        let error = &error as &dyn Error;
        warn!(build = %id, error, "cannot record the hold of a build");
    }
}
