//! The one loop of the agent: observe, plan, execute; the same at start-up and later. A
//! changed directory, the end of a guest, a request and a slow timer start a round.

mod capacity;
mod execute;
mod observe;
mod trials;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::ImageKey;
use config::builds::{Build, Status, VolumeSpace};
use jiff::Timestamp;
use parking_lot::Mutex;
use planner::admission::{RunningUsage, Shares};
use planner::{Action, BootstrapFailure, Decision, Observed};
use records::RecordsError;
use sys::blocking::blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::triggers::fs_watch::{self, Watch};
use crate::triggers::schedule;
use state::{AgentState, QueueSnapshot};

pub(crate) use execute::log_cleaning;
pub use observe::ObserveError;
pub(crate) use observe::observe;

/// The time between two rounds when nothing else starts one.
const PERIOD: Duration = Duration::from_mins(1);
/// The delay after a directory has changed, so that one change is observed as a whole.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// The age of the oldest build from which shares are rebuilt at start-up.
const HISTORY: Duration = Duration::from_hours(6);
/// The number of builds from which shares are rebuilt at start-up.
const HISTORY_BUILDS_MAX: u32 = 500;

/// The state of the loop between two rounds.
#[derive(Debug, Default)]
struct LoopState {
    /// The failed bootstraps.
    bootstrap_failures: BTreeMap<ImageKey, BootstrapFailure>,
    /// The fair-share usage of submitters.
    shares: Shares,
    /// The builds of earlier agents, until the shares are rebuilt from them.
    history: Vec<Build>,
    /// The notices that were logged last, so that each is logged once.
    notices: String,
}

impl LoopState {
    /// Updates the shares from an observation, and adds them to it.
    fn account(&mut self, observed: &mut Observed) {
        if !self.history.is_empty() {
            self.shares = observed.shares_of(&std::mem::take(&mut self.history));
        }
        let (usage, contenders) = (observed.usage(), observed.contenders());
        self.shares
            .observe(usage, &contenders, &observed.pool(), observed.now);
        observed.shares = self.shares.clone();
        self.log_notices(observed.notices().join("; "));
    }

    /// Counts the builds that a plan starts, however soon they end.
    fn account_starts(&mut self, actions: &[Action], now: Timestamp) {
        for action in actions {
            if let Action::StartBuild(start) = action {
                let usage = RunningUsage {
                    submitter: start.submitter.clone(),
                    since: now,
                    request: start.request.clone(),
                };
                self.shares.begin(start.id, usage);
            }
        }
    }

    /// Logs the notices, or their end, when they have changed.
    fn log_notices(&mut self, notices: String) {
        if notices == self.notices {
            return;
        }
        if notices.is_empty() {
            info!(notices = self.notices, "the host starts guests again");
        } else {
            error!(notices, "the host does not start guests");
        }
        self.notices = notices;
    }
}

/// Runs rounds until the agent stops.
pub async fn run(agent: Arc<AgentState>, mut watch: Watch) {
    let state = Arc::new(Mutex::new(LoopState {
        history: history(&agent).await,
        ..LoopState::default()
    }));
    while !agent.stopping.is_cancelled() {
        let began = Instant::now();
        let wake_at = round(&agent, &state, &mut watch).await;
        let rest = PERIOD.saturating_sub(began.elapsed()).min(until(wake_at));
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(rest.max(DEBOUNCE)) => {}
            () = agent.wake.notified() => {}
            // A request meanwhile does not wait for the delay.
            () = agent.stirred.notified() => drop(timeout(DEBOUNCE, agent.wake.notified()).await),
        }
    }
}

/// Returns the builds from which shares are rebuilt. Without them all submitters start
/// with equal shares.
async fn history(agent: &AgentState) -> Vec<Build> {
    let builds = async {
        let mut builds = agent.records.last_finished(HISTORY_BUILDS_MAX).await?;
        let oldest = Timestamp::now().saturating_sub(HISTORY).unwrap_or_default();
        builds.retain(|build| build.finished >= Some(oldest));
        builds.extend(agent.records.unfinished().await?);
        Ok::<_, RecordsError>(builds)
    };
    builds.await.unwrap_or_else(|error| {
        let error = &error as &dyn Error;
        warn!(error, "cannot rebuild the shares of submitters");
        Vec::new()
    })
}

/// Returns the time until `time`; a whole period for `None`.
fn until(time: Option<Timestamp>) -> Duration {
    let left = time.map(|time| time.duration_since(Timestamp::now()));
    left.map_or(PERIOD, |left| left.try_into().unwrap_or_default())
}

/// Observes, plans and executes once. Returns the time at which the next round is due
/// even if nothing changes.
async fn round(
    agent: &Arc<AgentState>,
    state: &Arc<Mutex<LoopState>>,
    watch: &mut Watch,
) -> Option<Timestamp> {
    // First, so that this round observes the builds that schedules submit.
    let scheduled = schedule::round(agent).await;
    let failures = state.lock().bootstrap_failures.clone();
    let mut observed = match observe(agent, failures).await {
        Ok(observed) => observed,
        Err(error) => {
            let error = sys::error_report::chain(&error);
            state
                .lock()
                .log_notices(format!("cannot observe the host: {error}"));
            return scheduled;
        }
    };
    state.lock().account(&mut observed);
    let directories = directories(agent, &observed);
    watch.follow(blocking(move || fs_watch::inodes(directories)).await);
    let decision = observed.decide();
    state.lock().account_starts(&decision.actions, observed.now);
    agent.publish_status(status(agent, &observed, &decision));
    agent.publish_queue(QueueSnapshot {
        capacity: observed.capacity.clone(),
        requests: observed.requests.clone(),
        order: decision.order,
    });
    execute::execute(agent, state, observed.retention, decision.actions).await;
    observed.wake_at().into_iter().chain(scheduled).min()
}

/// Returns the directories whose changes concern the scheduler.
fn directories(agent: &AgentState, observed: &Observed) -> Vec<PathBuf> {
    let toolchains = agent.toolchains.path();
    let volumes = agent.volumes.iter().map(|volume| volume.path().to_owned());
    let machines = observed
        .machines
        .values()
        .filter_map(|it| Some(agent.volumes.get(it.volume)?.directory(&it.view.name)));
    volumes
        .chain(machines)
        .chain([toolchains.to_owned()])
        .chain(observed.toolchains.keys().map(|name| toolchains.join(name)))
        .collect()
}

fn status(agent: &AgentState, observed: &Observed, decision: &Decision) -> Status {
    let jobs = &observed.jobs;
    Status {
        name: agent.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machines: observed.readiness(&decision.bootstrap_waits),
        trials: observed.trials(),
        queued: observed.queue.len(),
        guests: jobs.counts().iter().map(|(_, count)| count).sum(),
        notices: observed
            .notices()
            .into_iter()
            .chain(jobs.notices())
            .chain(observed.toolchain_faults())
            .collect(),
        volumes: agent
            .volumes
            .indexed()
            .filter_map(|(id, volume)| {
                Some(VolumeSpace {
                    path: volume.path().to_owned(),
                    bytes_free: *observed.free.get(&id)?,
                })
            })
            .collect(),
        resources: observed.pool().loads(),
    }
}
