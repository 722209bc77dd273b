//! Acts: takes the steps of a plan, one by one. What takes long becomes a task.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::builds::{Build, State, TransitionError};
use config::task::{Outcome, Provenance};
use config::{BuildId, MachineName, Revision};
use futures_util::FutureExt;
use jiff::Timestamp;
use store::Volume;
use store::prune::Pruned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::Memory;
use super::plan::{Action, Failure, ImageKey, Observed};
use crate::blocking;
use crate::jobs::bootstrap::{self, BootstrapError};
use crate::jobs::build::{self, Begin};
use crate::session::GuestFailure;
use crate::state::agent_state::{AgentState, Job};
use crate::state::guest_tag::CopyTag;

pub(super) fn remembered(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one step. A step that fails is logged; the next round plans it again.
pub(super) async fn act(
    agent: &Arc<AgentState>,
    memory: &Arc<Mutex<Memory>>,
    world: &Observed,
    step: Action,
) {
    match step {
        Action::FinishDeletions(volume) => finish_deletions(agent, volume).await,
        Action::DropSnapshot(pair, tag) => {
            let dropped = pair.clone();
            drop_from(
                agent,
                world,
                &pair,
                format!("snapshot {tag}"),
                move |volume| volume.drop_snapshot(&dropped.machine, &dropped.toolchain, &tag),
            )
            .await;
        }
        Action::DropImage(pair) => {
            let dropped = pair.clone();
            drop_from(agent, world, &pair, "image".to_owned(), move |volume| {
                volume.drop_image(&dropped.machine, &dropped.toolchain)
            })
            .await;
        }
        Action::Prune(volume, chosen) => start_prune(agent, world, volume, chosen),
        Action::CancelBootstrap(pair) => agent.with_jobs(|jobs| {
            if let Some((_, cancel)) = jobs.bootstraps.get(&pair) {
                cancel.cancel();
            }
        }),
        Action::Bootstrap(pair, wanted) => start_bootstrap(agent, memory, world, pair, wanted),
        Action::Freeze(pair, made) => start_freezing(agent, world, pair, made),
        Action::Build(id) => start_build(agent, world, id).await,
        Action::Say(id, message) => say(agent, vec![(id, message)]).await,
        Action::GiveWay(id) => {
            info!(build = %id, "the guest that is held gives way to others");
            agent.with_jobs(|jobs| {
                if let Some(job) = jobs.held.get(&id) {
                    job.give_way.cancel();
                }
            });
        }
        Action::Release(id) => {
            info!(build = %id, "what is held of the build gives way");
            agent.release(id);
        }
        Action::Attach(tag) => {
            let turn = match agent.drained() {
                Some(drained) => Err(format!("because {}", drained.message())),
                None => Ok(()),
            };
            tell(agent, tag, turn);
        }
        Action::TurnAway(tag, words) => tell(agent, tag, Err(words)),
        Action::Detach(tag) => {
            info!(copy = %tag, "the copy that somebody is attached to goes with its machine");
            agent.with_jobs(|jobs| jobs.attached.get(&tag).map(|it| it.end.cancel()));
        }
        Action::Abort(id, message) => {
            change(agent, id, |build| give_up(build, Outcome::Abort, message)).await;
        }
        Action::Skip(id, message) => {
            change(agent, id, |build| give_up(build, Outcome::Skip, message)).await;
            // Others may wait for this one.
            agent.wake.notify_one();
        }
    }
}

/// Tells somebody who wants to look into a copy whether there is room for it.
fn tell(agent: &AgentState, tag: CopyTag, turn: Result<(), String>) {
    agent.with_jobs(|jobs| {
        let waits = jobs.attached.get_mut(&tag).and_then(|it| it.turn.take());
        if let Some(waits) = waits {
            // Who has gone meanwhile has taken the copy along.
            let _ = waits.send(turn);
        }
    });
}

/// Tells what builds wait for, all in one go: many of them may wait for the same.
pub(super) async fn say(agent: &AgentState, words: Vec<(BuildId, String)>) {
    if let Err(error) = agent.records.say(words).await {
        warn!(
            "cannot record what builds wait for: {}",
            sys::error_report::chain(&error)
        );
    }
}

/// Finishes a build that has not started.
pub(crate) fn give_up(
    build: &mut Build,
    outcome: Outcome,
    message: String,
) -> Result<(), TransitionError> {
    build.enter(State::Finished, Timestamp::now())?;
    build.outcome = Some(outcome);
    build.message = message;
    Ok(())
}

fn volume_of<'h>(agent: &'h AgentState, world: &Observed, pair: &ImageKey) -> Option<&'h Volume> {
    agent.volumes.get(world.machines.get(&pair.machine)?.volume)
}

async fn finish_deletions(agent: &Arc<AgentState>, volume: usize) {
    let Some(volume) = agent.volumes.get(volume).cloned() else {
        return;
    };
    log_report(&blocking(move || volume.finish_deletions()).await);
}

/// Tells what was cleaned, and what could not be.
pub(crate) fn log_report(report: &store::CleanReport) {
    for (machine, step) in &report.done {
        info!(%machine, "cleaned: {step}");
    }
    for failure in &report.failed {
        warn!("{failure}: {}", sys::error_report::chain(&failure.error));
    }
}

async fn drop_from(
    agent: &AgentState,
    world: &Observed,
    pair: &ImageKey,
    what: String,
    drop: impl FnOnce(&Volume) -> store::Result<store::Change> + Send + 'static,
) {
    let Some(volume) = volume_of(agent, world, pair).cloned() else {
        return;
    };
    match blocking(move || drop(&volume)).await {
        Ok(_) => {
            info!(machine = %pair.machine, toolchain = %pair.toolchain, "deleted the {what}, which nothing needs");
        }
        Err(error) => {
            warn!(machine = %pair.machine, toolchain = %pair.toolchain, "cannot delete the {what}: {}", sys::error_report::chain(&error));
        }
    }
}

/// Deletes old revisions beside the loop: freeing their space may take a minute.
fn start_prune(
    agent: &Arc<AgentState>,
    world: &Observed,
    volume: usize,
    chosen: Vec<(MachineName, Revision)>,
) {
    let (Some(store), Some(rule)) = (agent.volumes.get(volume), world.retention) else {
        return;
    };
    // A machine that somebody changes now has its turn later.
    let store = store.clone().with_patience(Duration::ZERO);
    agent.with_jobs(|jobs| jobs.pruning.insert(volume));
    let task_agent = Arc::clone(agent);
    agent.tasks.spawn(async move {
        let pruned = blocking(move || store.prune_these(&chosen, &rule)).await;
        task_agent.with_jobs(|jobs| jobs.pruning.remove(&volume));
        match pruned {
            Ok(pruned) => {
                log_pruned(&pruned);
                // There may be more to do; what failed is tried again later.
                if !pruned.done.is_empty() {
                    task_agent.wake.notify_one();
                }
            }
            Err(error) => warn!(
                "cannot delete old revisions: {}",
                sys::error_report::chain(&error)
            ),
        }
    });
}

fn log_pruned(pruned: &Pruned) {
    for (machine, revision) in &pruned.done {
        info!(%machine, %revision, "deleted an old revision, as machines.keep_revisions says");
    }
    for (machine, revision, error) in &pruned.failed {
        let why = sys::error_report::chain(error);
        if error.is_in_use() {
            debug!(%machine, %revision, "an old revision stays for now: {why}");
        } else {
            warn!(%machine, %revision, "cannot delete an old revision: {why}");
        }
    }
}

fn start_bootstrap(
    agent: &Arc<AgentState>,
    memory: &Arc<Mutex<Memory>>,
    world: &Observed,
    pair: ImageKey,
    wanted: Provenance,
) {
    let Some(volume) = volume_of(agent, world, &pair).cloned() else {
        return;
    };
    let cancel = agent.stopping.child_token();
    if !begin_image(agent, &pair, &wanted, &cancel) {
        return;
    }
    let span = info_span!("bootstrap", machine = %pair.machine, toolchain = %pair.toolchain);
    let (task_agent, memory) = (Arc::clone(agent), Arc::clone(memory));
    let task = async move {
        info!("bootstrap begins");
        let began = Instant::now();
        let done = bootstrap::run(&task_agent, &volume, &pair, wanted.clone(), &cancel);
        let done = AssertUnwindSafe(done).catch_unwind().await;
        let done = told(
            &task_agent,
            &pair,
            done.unwrap_or(Err(BootstrapError::Panicked)),
        );
        let metrics = task_agent.records.metrics();
        metrics.bootstrap(done.is_ok(), began.elapsed());
        settle_bootstrap(&mut remembered(&memory), &pair, wanted, done, &cancel);
        task_agent.with_jobs(|jobs| jobs.bootstraps.remove(&pair));
        task_agent.wake.notify_one();
    };
    agent.tasks.spawn(task.instrument(span));
}

/// Makes a job of what changes an image, unless the host was drained meanwhile.
fn begin_image(
    agent: &AgentState,
    pair: &ImageKey,
    made: &Provenance,
    cancel: &CancellationToken,
) -> bool {
    agent.with_jobs(|jobs| {
        let may = agent.drained().is_none();
        if may {
            let job = (made.clone(), cancel.clone());
            jobs.bootstraps.insert(pair.clone(), job);
        }
        may
    })
}

/// Freezes a guest anew in an image that serves without it.
fn start_freezing(agent: &Arc<AgentState>, world: &Observed, pair: ImageKey, made: Provenance) {
    let Some(volume) = volume_of(agent, world, &pair).cloned() else {
        return;
    };
    let cancel = agent.stopping.child_token();
    if !begin_image(agent, &pair, &made, &cancel) {
        return;
    }
    let span = info_span!("freeze", machine = %pair.machine, toolchain = %pair.toolchain);
    let (tasks, agent) = (agent.tasks.clone(), Arc::clone(agent));
    let task = async move {
        info!("a guest is to be frozen in the image");
        let done = bootstrap::freeze_anew(&agent, &volume, &pair, made, &cancel);
        let done = AssertUnwindSafe(done).catch_unwind().await;
        let done = done.unwrap_or(Err(BootstrapError::Panicked));
        if let Err(error) = told(&agent, &pair, done) {
            let why = sys::error_report::chain(&error);
            warn!("no guest was frozen in the image: {why}");
            if !is_wanted(&error, &cancel) {
                agent.frozen.failed(&pair, why);
            }
        }
        agent.with_jobs(|jobs| jobs.bootstraps.remove(&pair));
        agent.wake.notify_one();
    };
    tasks.spawn(task.instrument(span));
}

/// How a bootstrap ended: a cancelled one, perhaps for want of room.
fn told(
    agent: &AgentState,
    pair: &ImageKey,
    done: Result<(), BootstrapError>,
) -> Result<(), BootstrapError> {
    match (
        done,
        agent.was_ended_for_room(&Job::Bootstrap(pair.clone())),
    ) {
        (Err(_), Some(place)) => Err(GuestFailure::DiskFull(place).into()),
        (done, _) => done,
    }
}

/// Whether it ended because somebody wanted it to.
fn is_wanted(error: &BootstrapError, cancel: &CancellationToken) -> bool {
    cancel.is_cancelled() && !matches!(error, BootstrapError::Ended(GuestFailure::DiskFull(_)))
}

/// Remembers how a bootstrap ended.
fn settle_bootstrap(
    memory: &mut Memory,
    pair: &ImageKey,
    wanted: Provenance,
    done: Result<(), BootstrapError>,
    cancel: &CancellationToken,
) {
    match done {
        Ok(()) => {
            info!("bootstrap done: the new image serves");
            memory.failures.remove(pair);
        }
        Err(error) if is_wanted(&error, cancel) => {
            info!("bootstrap ended: {}", sys::error_report::chain(&error));
        }
        Err(error) => {
            let message = sys::error_report::chain(&error);
            warn!("bootstrap failed: {message}");
            let before = memory
                .failures
                .get(pair)
                .filter(|failure| failure.wanted == wanted);
            let attempts = before.map_or(0, |failure| failure.attempts) + 1;
            memory.failures.insert(
                pair.clone(),
                Failure {
                    wanted,
                    attempts,
                    message,
                },
            );
        }
    }
}

async fn start_build(agent: &Arc<AgentState>, world: &Observed, id: BuildId) {
    let _queue = agent.queue.lock().await;
    let build = match agent.records.get(id).await {
        Ok(Some(build)) if build.state == State::Queued && agent.drained().is_none() => build,
        Ok(_) => return,
        Err(error) => {
            return warn!(build = %id, "cannot start a build: {}", sys::error_report::chain(&error));
        }
    };
    let pair = ImageKey::of(&build);
    let Some(volume) = volume_of(agent, world, &pair).cloned() else {
        return;
    };
    info!(build = %id, machine = %build.machine, "build begins");
    run_build(agent, volume, build, Begin::New);
}

/// Goes on with a build whose guest an earlier agent started.
pub(crate) fn take_up(agent: &Arc<AgentState>, volume: Volume, build: Build) {
    info!(build = %build.id, machine = %build.machine, "taking up a build whose guest still runs");
    run_build(agent, volume, build, Begin::Running);
}

/// Makes a build a job and a task.
fn run_build(agent: &Arc<AgentState>, volume: Volume, build: Build, begin: Begin) {
    let id = build.id;
    let pair = ImageKey::of(&build);
    let cancel = agent.stopping.child_token();
    agent.with_jobs(|jobs| jobs.builds.insert(id, (pair, cancel.clone())));
    let task_agent = Arc::clone(agent);
    let task = async move {
        build::run(&task_agent, &volume, build, begin, &cancel).await;
        task_agent.with_jobs(|jobs| jobs.builds.remove(&id));
        task_agent.wake.notify_one();
    };
    agent.tasks.spawn(task.instrument(info_span!("build", %id)));
}

/// Changes the record of a build that waits.
async fn change(
    agent: &AgentState,
    id: BuildId,
    change: impl FnOnce(&mut Build) -> Result<(), TransitionError>,
) {
    let _queue = agent.queue.lock().await;
    let saved = match agent.records.get(id).await {
        Ok(Some(mut build)) if build.state == State::Queued => {
            if let Err(error) = change(&mut build) {
                return warn!(build = %id, %error, "cannot change a build");
            }
            agent.records.save(&build).await
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = saved {
        warn!(build = %id, "cannot change the record of a build: {}", sys::error_report::chain(&error));
    }
}
