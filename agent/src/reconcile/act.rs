//! Acts: takes the steps of a plan, one by one. What takes long becomes a task.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::builds::{Build, State};
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
use super::plan::{Failure, Pair, Step, World};
use crate::blocking;
use crate::bootstrap::{self, BootstrapError};
use crate::builds::{self, Begin};
use crate::guest_tag::CopyTag;
use crate::host::{Host, Job};
use crate::session::Ended;

pub(super) fn remembered(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes one step. A step that fails is logged; the next round plans it again.
pub(super) async fn act(host: &Arc<Host>, memory: &Arc<Mutex<Memory>>, world: &World, step: Step) {
    match step {
        Step::FinishDeletions(volume) => finish_deletions(host, volume).await,
        Step::DropSnapshot(pair, tag) => {
            let dropped = pair.clone();
            drop_from(
                host,
                world,
                &pair,
                format!("snapshot {tag}"),
                move |volume| volume.drop_snapshot(&dropped.machine, &dropped.toolchain, &tag),
            )
            .await;
        }
        Step::DropImage(pair) => {
            let dropped = pair.clone();
            drop_from(host, world, &pair, "image".to_owned(), move |volume| {
                volume.drop_image(&dropped.machine, &dropped.toolchain)
            })
            .await;
        }
        Step::Prune(volume, chosen) => start_prune(host, world, volume, chosen),
        Step::CancelBootstrap(pair) => host.with_jobs(|jobs| {
            if let Some((_, cancel)) = jobs.bootstraps.get(&pair) {
                cancel.cancel();
            }
        }),
        Step::Bootstrap(pair, wanted) => start_bootstrap(host, memory, world, pair, wanted),
        Step::Freeze(pair, made) => start_freezing(host, world, pair, made),
        Step::Build(id) => start_build(host, world, id).await,
        Step::Say(id, message) => say(host, vec![(id, message)]).await,
        Step::GiveWay(id) => {
            info!(build = %id, "the guest that is held gives way to others");
            host.with_jobs(|jobs| {
                if let Some(job) = jobs.held.get(&id) {
                    job.give_way.cancel();
                }
            });
        }
        Step::Release(id) => {
            info!(build = %id, "what is held of the build gives way");
            host.release(id);
        }
        Step::Attach(tag) => {
            let turn = match host.drained() {
                Some(drained) => Err(format!("because {}", drained.words())),
                None => Ok(()),
            };
            tell(host, tag, turn);
        }
        Step::TurnAway(tag, words) => tell(host, tag, Err(words)),
        Step::Detach(tag) => {
            info!(copy = %tag, "the copy that somebody is attached to goes with its machine");
            host.with_jobs(|jobs| jobs.attached.get(&tag).map(|it| it.end.cancel()));
        }
        Step::Abort(id, message) => {
            change(host, id, |build| give_up(build, Outcome::Abort, message)).await;
        }
        Step::Skip(id, message) => {
            change(host, id, |build| give_up(build, Outcome::Skip, message)).await;
            // Others may wait for this one.
            host.wake.notify_one();
        }
    }
}

/// Tells somebody who wants to look into a copy whether there is room for it.
fn tell(host: &Host, tag: CopyTag, turn: Result<(), String>) {
    host.with_jobs(|jobs| {
        let waits = jobs.attached.get_mut(&tag).and_then(|it| it.turn.take());
        if let Some(waits) = waits {
            // Who has gone meanwhile has taken the copy along.
            let _ = waits.send(turn);
        }
    });
}

/// Tells what builds wait for, all in one go: many of them may wait for the same.
pub(super) async fn say(host: &Host, words: Vec<(BuildId, String)>) {
    if let Err(error) = host.records.say(words).await {
        warn!(
            "cannot record what builds wait for: {}",
            crate::chain(&error)
        );
    }
}

/// Ends a build that has not begun.
pub(crate) fn give_up(build: &mut Build, outcome: Outcome, message: String) {
    build.enter(State::Finished, Timestamp::now());
    build.outcome = Some(outcome);
    build.message = message;
}

fn volume_of<'h>(host: &'h Host, world: &World, pair: &Pair) -> Option<&'h Volume> {
    host.volumes.get(world.machines.get(&pair.machine)?.volume)
}

async fn finish_deletions(host: &Arc<Host>, volume: usize) {
    let Some(volume) = host.volumes.get(volume).cloned() else {
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
        warn!("{failure}: {}", crate::chain(&failure.error));
    }
}

async fn drop_from(
    host: &Host,
    world: &World,
    pair: &Pair,
    what: String,
    drop: impl FnOnce(&Volume) -> store::Result<store::Change> + Send + 'static,
) {
    let Some(volume) = volume_of(host, world, pair).cloned() else {
        return;
    };
    match blocking(move || drop(&volume)).await {
        Ok(_) => {
            info!(machine = %pair.machine, toolchain = %pair.toolchain, "deleted the {what}, which nothing needs");
        }
        Err(error) => {
            warn!(machine = %pair.machine, toolchain = %pair.toolchain, "cannot delete the {what}: {}", crate::chain(&error));
        }
    }
}

/// Deletes old revisions beside the loop: freeing their space may take a minute.
fn start_prune(
    host: &Arc<Host>,
    world: &World,
    volume: usize,
    chosen: Vec<(MachineName, Revision)>,
) {
    let (Some(store), Some(rule)) = (host.volumes.get(volume), world.retention) else {
        return;
    };
    // A machine that somebody changes now has its turn later.
    let store = store.clone().with_patience(Duration::ZERO);
    host.with_jobs(|jobs| jobs.pruning.insert(volume));
    let task_host = Arc::clone(host);
    host.tasks.spawn(async move {
        let pruned = blocking(move || store.prune_these(&chosen, &rule)).await;
        task_host.with_jobs(|jobs| jobs.pruning.remove(&volume));
        match pruned {
            Ok(pruned) => {
                log_pruned(&pruned);
                // There may be more to do; what failed is tried again later.
                if !pruned.done.is_empty() {
                    task_host.wake.notify_one();
                }
            }
            Err(error) => warn!("cannot delete old revisions: {}", crate::chain(&error)),
        }
    });
}

fn log_pruned(pruned: &Pruned) {
    for (machine, revision) in &pruned.done {
        info!(%machine, %revision, "deleted an old revision, as machines.keep_revisions says");
    }
    for (machine, revision, error) in &pruned.failed {
        let why = crate::chain(error);
        if error.is_in_use() {
            debug!(%machine, %revision, "an old revision stays for now: {why}");
        } else {
            warn!(%machine, %revision, "cannot delete an old revision: {why}");
        }
    }
}

fn start_bootstrap(
    host: &Arc<Host>,
    memory: &Arc<Mutex<Memory>>,
    world: &World,
    pair: Pair,
    wanted: Provenance,
) {
    let Some(volume) = volume_of(host, world, &pair).cloned() else {
        return;
    };
    let cancel = host.stopping.child_token();
    if !begin_image(host, &pair, &wanted, &cancel) {
        return;
    }
    let span = info_span!("bootstrap", machine = %pair.machine, toolchain = %pair.toolchain);
    let (task_host, memory) = (Arc::clone(host), Arc::clone(memory));
    let task = async move {
        info!("bootstrap begins");
        let began = Instant::now();
        let done = bootstrap::run(&task_host, &volume, &pair, wanted.clone(), &cancel);
        let done = AssertUnwindSafe(done).catch_unwind().await;
        let done = told(
            &task_host,
            &pair,
            done.unwrap_or(Err(BootstrapError::Panicked)),
        );
        let metrics = task_host.records.metrics();
        metrics.bootstrap(done.is_ok(), began.elapsed());
        settle_bootstrap(&mut remembered(&memory), &pair, wanted, done, &cancel);
        task_host.with_jobs(|jobs| jobs.bootstraps.remove(&pair));
        task_host.wake.notify_one();
    };
    host.tasks.spawn(task.instrument(span));
}

/// Makes a job of what changes an image, unless the host was drained meanwhile.
fn begin_image(host: &Host, pair: &Pair, made: &Provenance, cancel: &CancellationToken) -> bool {
    host.with_jobs(|jobs| {
        let may = host.drained().is_none();
        if may {
            let job = (made.clone(), cancel.clone());
            jobs.bootstraps.insert(pair.clone(), job);
        }
        may
    })
}

/// Freezes a guest anew in an image that serves without it.
fn start_freezing(host: &Arc<Host>, world: &World, pair: Pair, made: Provenance) {
    let Some(volume) = volume_of(host, world, &pair).cloned() else {
        return;
    };
    let cancel = host.stopping.child_token();
    if !begin_image(host, &pair, &made, &cancel) {
        return;
    }
    let span = info_span!("freeze", machine = %pair.machine, toolchain = %pair.toolchain);
    let (tasks, host) = (host.tasks.clone(), Arc::clone(host));
    let task = async move {
        info!("a guest is to be frozen in the image");
        let done = bootstrap::freeze_anew(&host, &volume, &pair, made, &cancel);
        let done = AssertUnwindSafe(done).catch_unwind().await;
        let done = done.unwrap_or(Err(BootstrapError::Panicked));
        if let Err(error) = told(&host, &pair, done) {
            let why = crate::chain(&error);
            warn!("no guest was frozen in the image: {why}");
            if !is_wanted(&error, &cancel) {
                host.frozen.failed(&pair, why);
            }
        }
        host.with_jobs(|jobs| jobs.bootstraps.remove(&pair));
        host.wake.notify_one();
    };
    tasks.spawn(task.instrument(span));
}

/// How a bootstrap ended: a cancelled one, perhaps for want of room.
fn told(host: &Host, pair: &Pair, done: Result<(), BootstrapError>) -> Result<(), BootstrapError> {
    match (done, host.was_ended_for_room(&Job::Bootstrap(pair.clone()))) {
        (Err(_), Some(place)) => Err(Ended::Full(place).into()),
        (done, _) => done,
    }
}

/// Whether it ended because somebody wanted it to.
fn is_wanted(error: &BootstrapError, cancel: &CancellationToken) -> bool {
    cancel.is_cancelled() && !matches!(error, BootstrapError::Ended(Ended::Full(_)))
}

/// Remembers how a bootstrap ended.
fn settle_bootstrap(
    memory: &mut Memory,
    pair: &Pair,
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
            info!("bootstrap ended: {}", crate::chain(&error));
        }
        Err(error) => {
            let message = crate::chain(&error);
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

async fn start_build(host: &Arc<Host>, world: &World, id: BuildId) {
    let _queue = host.queue.lock().await;
    let build = match host.records.get(id).await {
        Ok(Some(build)) if build.state == State::Queued && host.drained().is_none() => build,
        Ok(_) => return,
        Err(error) => return warn!(build = %id, "cannot start a build: {}", crate::chain(&error)),
    };
    let pair = Pair::of(&build);
    let Some(volume) = volume_of(host, world, &pair).cloned() else {
        return;
    };
    info!(build = %id, machine = %build.machine, "build begins");
    run_build(host, volume, build, Begin::New);
}

/// Goes on with a build whose guest an earlier agent started.
pub(crate) fn take_up(host: &Arc<Host>, volume: Volume, build: Build) {
    info!(build = %build.id, machine = %build.machine, "taking up a build whose guest still runs");
    run_build(host, volume, build, Begin::Running);
}

/// Makes a build a job and a task.
fn run_build(host: &Arc<Host>, volume: Volume, build: Build, begin: Begin) {
    let id = build.id;
    let pair = Pair::of(&build);
    let cancel = host.stopping.child_token();
    host.with_jobs(|jobs| jobs.builds.insert(id, (pair, cancel.clone())));
    let task_host = Arc::clone(host);
    let task = async move {
        builds::run(&task_host, &volume, build, begin, &cancel).await;
        task_host.with_jobs(|jobs| jobs.builds.remove(&id));
        task_host.wake.notify_one();
    };
    host.tasks.spawn(task.instrument(info_span!("build", %id)));
}

/// Changes the record of a build that waits.
async fn change(host: &Host, id: BuildId, change: impl FnOnce(&mut Build)) {
    let _queue = host.queue.lock().await;
    let saved = match host.records.get(id).await {
        Ok(Some(mut build)) if build.state == State::Queued => {
            change(&mut build);
            host.records.save(&build).await
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = saved {
        warn!(build = %id, "cannot change the record of a build: {}", crate::chain(&error));
    }
}
