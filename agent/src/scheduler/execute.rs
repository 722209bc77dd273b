//! Execution of a plan's actions. Everything that takes long becomes a task.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, State};
use config::task::Outcome;
use config::{BuildId, ImageKey, MachineName, Revision};
use parking_lot::Mutex;
use planner::plan::{Action, BootstrapFailure, ImageStart};
use store::prune::{PrunePolicy, PruneReport};
use store::{Volume, VolumeId};
use sys::blocking::blocking;
use tracing::{debug, info, warn};

use super::{LoopState, trials};
use jobs::{self, ImageJobKind, JobEnd};
use state::{AgentState, LeaseEnd};

/// Executes the actions in order. A failed action is logged; the next round plans it
/// again.
pub(super) async fn execute(
    agent: &Arc<AgentState>,
    state: &Arc<Mutex<LoopState>>,
    retention: Option<PrunePolicy>,
    actions: Vec<Action>,
) {
    let mut wait_reasons = Vec::new();
    for action in actions {
        match action {
            // In one transaction: many builds may wait for the same reason.
            Action::SetWaitReason(id, reason) => wait_reasons.push((id, reason)),
            action => execute_one(agent, state, retention, action).await,
        }
    }
    set_wait_reasons(agent, wait_reasons).await;
}

async fn set_wait_reasons(agent: &AgentState, wait_reasons: Vec<(BuildId, String)>) {
    if let Err(error) = agent.records.set_wait_reasons(wait_reasons).await {
        let error = &error as &dyn Error;
        warn!(error, "cannot record the reasons for which builds wait");
    }
}

async fn execute_one(
    agent: &Arc<AgentState>,
    state: &Arc<Mutex<LoopState>>,
    retention: Option<PrunePolicy>,
    action: Action,
) {
    match action {
        Action::SetWaitReason(id, reason) => set_wait_reasons(agent, vec![(id, reason)]).await,
        Action::Prune(volume, chosen) => start_prune(agent, retention, volume, chosen),
        Action::FinishDeletions(volume) => finish_deletions(agent, volume).await,
        Action::DeleteSnapshot(volume, key, tag) => {
            let deleted = key.clone();
            let delete = move |volume: &Volume| {
                volume.delete_snapshot(&deleted.machine, &deleted.toolchain, &tag)
            };
            delete_unused(agent, volume, &key, "snapshot", delete).await;
        }
        Action::DeleteImage(volume, key) => {
            let deleted = key.clone();
            let delete =
                move |volume: &Volume| volume.delete_image(&deleted.machine, &deleted.toolchain);
            delete_unused(agent, volume, &key, "image", delete).await;
        }
        Action::DeleteTrialImage(volume, key, revision) => {
            delete_trial_image(agent, volume, key, revision).await;
        }
        Action::EndTrial {
            volume,
            machine,
            revision,
            verdict,
            reason,
        } => drop(trials::end(agent, volume, machine, revision, (verdict, reason)).await),
        Action::CancelBootstrap(key) => drop(agent.jobs.cancel_image(&key)),
        Action::YieldBootstrap(key) => yield_bootstrap(agent, &key),
        Action::StartBootstrap(start) => start_bootstrap(agent, state, start),
        Action::StartCheckpoint(start) => {
            jobs::start_image(agent, ImageJobKind::Checkpoint, start, |_| {});
        }
        Action::StartBuild(start) => jobs::start_build(agent, start).await,
        Action::PrepareGuest(start) => jobs::ready::prepare(agent, start),
        Action::DiscardReadyGuest(tag) => jobs::ready::discard(agent, tag).await,
        Action::EvictHold(id) => {
            info!(build = %id, "evicting the guest of a held build");
            agent.jobs.evict_hold(id);
        }
        Action::ReleaseHold(id) => {
            info!(build = %id, "releasing a held build");
            agent.jobs.release_hold(id);
        }
        Action::AdmitDebugSession(tag) => {
            agent.jobs.answer_debug_session(tag, admission(agent));
        }
        Action::RejectDebugSession(tag, reason) => {
            agent.jobs.answer_debug_session(tag, Err(reason));
        }
        Action::AdmitFork(id) => agent.jobs.answer_fork(id, admission(agent)),
        Action::RejectFork(id, reason) => agent.jobs.answer_fork(id, Err(reason)),
        Action::EndDebugSession(tag) => {
            info!(session = %tag, "ending a debug session: its machine is being deleted");
            agent.jobs.cancel_debug_session(tag);
        }
        Action::GiveBack(id, reason) => {
            let end = LeaseEnd::Revoked(reason);
            end_queued(agent, id, end.outcome(), end.to_string()).await;
        }
        Action::Abort(id, message) => end_queued(agent, id, Outcome::Abort, message).await,
        Action::Skip(id, message) => {
            end_queued(agent, id, Outcome::Skip, message).await;
            // Other builds may depend on this one.
            agent.wake.notify_one();
        }
    }
}

/// Admits what a plan has admitted, unless the host was drained since.
fn admission(agent: &AgentState) -> Result<(), String> {
    match agent.drained() {
        Some(drained) => Err(format!("because {}", drained.message())),
        None => Ok(()),
    }
}

/// Stops a bootstrap that no build needs. Its cancellation is not a failure.
fn yield_bootstrap(agent: &AgentState, key: &ImageKey) {
    let ImageKey { machine, toolchain } = key;
    // The plan repeats the action until the guest has ended.
    if agent.jobs.cancel_image(key) {
        info!(%machine, %toolchain, "stopping a bootstrap that no build needs: others wait for its resources");
    }
}

async fn finish_deletions(agent: &AgentState, volume: VolumeId) {
    let Some(volume) = agent.volumes.get(volume).cloned() else {
        return;
    };
    log_cleaning(&blocking(move || volume.finish_deletions()).await);
}

/// Logs the deletions that were made and those that failed.
pub(crate) fn log_cleaning(report: &store::CleanReport) {
    for (machine, step) in &report.done {
        info!(%machine, %step, "cleaned a machine directory");
    }
    for failure in &report.failed {
        let error = &failure.error as &dyn Error;
        warn!(%failure, error, "cannot clean a machine directory");
    }
}

async fn delete_trial_image(
    agent: &AgentState,
    volume: VolumeId,
    key: ImageKey,
    revision: Revision,
) {
    let deleted = key.clone();
    let delete = move |volume: &Volume| {
        volume.delete_trial_image(&deleted.machine, revision, &deleted.toolchain)
    };
    delete_unused(agent, volume, &key, "image", delete).await;
}

async fn delete_unused(
    agent: &AgentState,
    volume: VolumeId,
    key: &ImageKey,
    kind: &'static str,
    delete: impl FnOnce(&Volume) -> store::Result<store::Change> + Send + 'static,
) {
    let Some(volume) = agent.volumes.get(volume).cloned() else {
        return;
    };
    let ImageKey { machine, toolchain } = key;
    match blocking(move || delete(&volume)).await {
        Ok(_) => info!(%machine, %toolchain, kind, "deleted an unused subvolume"),
        Err(error) => {
            let error = &error as &dyn Error;
            warn!(%machine, %toolchain, kind, error, "cannot delete an unused subvolume");
        }
    }
}

/// Starts to delete old revisions. The space that they take may need a minute to free.
fn start_prune(
    agent: &Arc<AgentState>,
    retention: Option<PrunePolicy>,
    volume: VolumeId,
    chosen: Vec<(MachineName, Revision)>,
) {
    let (Some(store), Some(rule)) = (agent.volumes.get(volume), retention) else {
        return;
    };
    // A machine that is locked now is pruned in a later round.
    let store = store.clone().with_lock_timeout(Duration::ZERO);
    agent.jobs.with(|jobs| jobs.pruning.insert(volume));
    let task_agent = Arc::clone(agent);
    agent.tasks.spawn(async move {
        let pruned = blocking(move || store.prune_selected(&chosen, &rule)).await;
        task_agent.jobs.with(|jobs| jobs.pruning.remove(&volume));
        match pruned {
            Ok(pruned) => {
                log_pruned(&pruned);
                // There may be more to prune. Failures are retried in a later round.
                if !pruned.deleted.is_empty() {
                    task_agent.wake.notify_one();
                }
            }
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(error, "cannot delete old revisions");
            }
        }
    });
}

fn log_pruned(pruned: &PruneReport) {
    for (machine, revision) in &pruned.deleted {
        info!(%machine, %revision, "deleted an old revision, as machines.keep_revisions says");
    }
    for (machine, revision, error) in &pruned.failed {
        let in_use = error.is_in_use();
        let error = error as &dyn Error;
        if in_use {
            debug!(%machine, %revision, error, "keeping an old revision that is in use");
        } else {
            warn!(%machine, %revision, error, "cannot delete an old revision");
        }
    }
}

fn start_bootstrap(agent: &Arc<AgentState>, state: &Arc<Mutex<LoopState>>, start: ImageStart) {
    let (state, key, inputs) = (Arc::clone(state), start.key.clone(), start.inputs.clone());
    jobs::start_image(agent, ImageJobKind::Bootstrap, start, move |result| {
        let failures = &mut state.lock().bootstrap_failures;
        match result {
            JobEnd::Done => drop(failures.remove(&key)),
            JobEnd::Cancelled => {}
            JobEnd::Failed(message) => {
                let before = failures.get(&key).filter(|it| it.inputs == inputs);
                let attempts = before.map_or(0, |it| it.attempts) + 1;
                let failure = BootstrapFailure {
                    inputs,
                    attempts,
                    message,
                };
                failures.insert(key, failure);
            }
        }
    });
}

/// Ends a build that is in the queue.
async fn end_queued(agent: &AgentState, id: BuildId, outcome: Outcome, message: String) {
    let _queue = agent.queue.lock().await;
    let end = move |build: &mut Build| {
        build.state == State::Queued && jobs::end_without_start(build, outcome, message).is_ok()
    };
    if let Err(error) = agent.records.change(id, end).await {
        let error = &error as &dyn Error;
        warn!(build = %id, error, "cannot change the record of a build");
    }
}
