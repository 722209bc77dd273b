//! The one loop of the agent: observe, plan, execute; the same at start-up and later. A
//! changed directory, the end of a guest, a request and a slow timer start a round.

mod capacity;
mod execute;
mod observe;
pub(crate) mod pressure;
pub(crate) mod trials;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::ImageKey;
use config::builds::{Build, Status, VolumeSpace};
use config::settings::Settings;
use jiff::Timestamp;
use parking_lot::Mutex;
use planner::admission::{RunningUsage, Shares};
use planner::pressure::{HighPressure, PressureGate};
use planner::{Action, BootstrapFailure, Decision, Observed};
use records::RecordsError;
use sys::blocking::blocking;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::service_manager;
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
    /// The pressure that is high.
    pressure: PressureGate,
    /// The pressure that was logged last, so that each change is logged once.
    logged_pressure: Option<HighPressure>,
    /// Set once the lack of reports on pressure was logged.
    logged_no_pressure: bool,
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

    /// Updates the gate for host pressure from an observation, and adds its state to that.
    fn limit_pressure(&mut self, observed: &mut Observed, settings: &Settings) {
        let limits = &settings.guests.pressure;
        self.pressure
            .update(&observed.pressure, limits, observed.now);
        let high = self.pressure.high(limits);
        observed.capacity.pressure = high;
        if high != self.logged_pressure {
            if let Some(high) = high {
                warn!(notice = high.notice(), "the host is under pressure");
            } else {
                info!("the pressure on the host is low again");
            }
            self.logged_pressure = high;
        }
        let unreported = pressure::unreported(&observed.pressure, limits);
        if !unreported.is_empty() && !self.logged_no_pressure {
            self.logged_no_pressure = true;
            let directory = settings.paths.pressure.display();
            warn!(%directory, ?unreported, "the kernel does not report the pressure on the host: limits on it have no effect");
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
        service_manager::alive();
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
    let pressure_at = {
        let mut state = state.lock();
        state.limit_pressure(&mut observed, &agent.settings());
        state.account(&mut observed);
        state.pressure.wake_at(observed.now)
    };
    let directories = directories(agent, &observed);
    watch.follow(blocking(move || fs_watch::inodes(directories)).await);
    let decision = observed.decide();
    state.lock().account_starts(&decision.actions, observed.now);
    let pressure = state.lock().pressure.clone();
    agent.publish_status(status(agent, &observed, &decision, &pressure));
    let observed = Arc::new(observed);
    agent.publish_queue(QueueSnapshot {
        observed: Arc::clone(&observed),
        order: decision.order,
    });
    execute::execute(agent, state, observed.retention, decision.actions).await;
    let times = [observed.wake_at(), scheduled, pressure_at];
    times.into_iter().flatten().min()
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

fn status(
    agent: &AgentState,
    observed: &Observed,
    decision: &Decision,
    pressure: &PressureGate,
) -> Status {
    let jobs = &observed.jobs;
    Status {
        name: agent.settings().name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machines: observed.readiness(&decision.bootstrap_waits),
        trials: observed.trials(),
        queued: observed.queue.len(),
        guests: jobs.counts().iter().map(|(_, count)| count).sum(),
        notices: observed
            .notices()
            .into_iter()
            .chain(observed.pressure_notice())
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
        pressure: pressure.report(&observed.pressure, &agent.settings().guests.pressure),
    }
}
