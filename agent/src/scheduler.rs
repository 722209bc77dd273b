//! The one loop of the agent: look, plan, act; the same at start and later. Woken
//! by directories that change, by guests that end, by requests, and by a slow timer.

mod admission;
mod capacity;
mod execute;
mod observe;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::BuildId;
use config::builds::{Build, Status};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::records::RecordsError;
use crate::state::agent_state::AgentState;
use crate::triggers::fs_watch::Watch;
use crate::triggers::schedule;

pub use admission::{
    Allocation, Candidate, Capacity, JobId, Kept, Refusal, ResourceRequest, Room, Rules, Run,
    Shares, UsageInterval, admit, listed,
};
pub(crate) use execute::{give_up, log_report, take_up};
pub use observe::LookError;
pub(crate) use observe::look;
pub use plan::{Action, Ending, Failure, ImageKey, Jobs, MachineState, Observed, Running, Waiting};

/// How long the loop rests when nothing wakes it.
const REST: Duration = Duration::from_mins(1);
/// How long it waits after a directory has changed, so that one change is not seen in
/// parts.
const SETTLE: Duration = Duration::from_millis(20);

/// How far back the agent looks, when it starts, for what submitters have had.
const PAST: Duration = Duration::from_hours(6);
/// How many builds it looks at, at the most.
const PAST_MAX: u32 = 500;

/// What the loop remembers from one round to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// The bootstraps that failed.
    pub failures: BTreeMap<ImageKey, Failure>,
    /// What submitters have had of the host.
    shares: Shares,
    /// What an earlier agent did, until we have reckoned with it.
    past: Vec<Build>,
    /// What was last said to be wrong, so that it is said once.
    complaint: String,
}

/// What the loop last found of the queue.
#[derive(Debug, Clone, Default)]
pub struct QueueSnapshot {
    /// What the host can give.
    pub capacity: Capacity,
    /// What guests take of it.
    pub demands: BTreeMap<ImageKey, ResourceRequest>,
    /// The builds that could start, in the order of their turns.
    pub order: Vec<BuildId>,
}

impl Memory {
    /// Takes in what was seen, and adds to it what only we remember.
    fn take_in(&mut self, world: &mut Observed) {
        if !self.past.is_empty() {
            self.shares = world.shares_of(&std::mem::take(&mut self.past));
        }
        let (runs, contenders) = (world.runs(), world.contenders());
        self.shares
            .observe(runs, &contenders, &world.room(), world.now);
        world.shares = self.shares.clone();
        self.complain(world.notices().join("; "));
    }

    /// Logs what is wrong, or that it is no longer, when that has changed.
    fn complain(&mut self, complaint: String) {
        if complaint == self.complaint {
            return;
        }
        if complaint.is_empty() {
            info!("this is over: {}", self.complaint);
        } else {
            error!("{complaint}");
        }
        self.complaint = complaint;
    }
}

/// Runs until the agent stops.
pub async fn run(agent: Arc<AgentState>, mut watch: Watch) {
    let memory = Memory {
        past: past(&agent).await,
        ..Memory::default()
    };
    let memory = Arc::new(std::sync::Mutex::new(memory));
    while !agent.stopping.is_cancelled() {
        let began = Instant::now();
        let wake_at = round(&agent, &memory, &mut watch).await;
        let rest = REST.saturating_sub(began.elapsed()).min(until(wake_at));
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(rest.max(SETTLE)) => {}
            () = agent.wake.notified() => {}
            // Whoever asks for something meanwhile does not wait for that.
            () = agent.stirred.notified() => drop(timeout(SETTLE, agent.wake.notified()).await),
        }
    }
}

/// The builds that what submitters have had is reckoned by. Without them everybody
/// begins anew.
async fn past(agent: &AgentState) -> Vec<Build> {
    let builds = async {
        let mut builds = agent.records.last_finished(PAST_MAX).await?;
        let recent = Timestamp::now().saturating_sub(PAST).unwrap_or_default();
        builds.retain(|build| build.finished >= Some(recent));
        builds.extend(agent.records.unfinished().await?);
        Ok::<_, RecordsError>(builds)
    };
    builds.await.unwrap_or_else(|error| {
        warn!(
            "cannot see what submitters have had: {}",
            sys::error_report::chain(&error)
        );
        Vec::new()
    })
}

/// How long it is until then; long, when that is never.
fn until(time: Option<Timestamp>) -> Duration {
    let left = time.map(|time| time.duration_since(Timestamp::now()));
    left.map_or(REST, |left| left.try_into().unwrap_or_default())
}

/// Looks, plans and acts once. Returns when time alone makes another round needful.
async fn round(
    agent: &Arc<AgentState>,
    memory: &Arc<std::sync::Mutex<Memory>>,
    watch: &mut Watch,
) -> Option<Timestamp> {
    // First, so that what they ask for is seen.
    let scheduled = schedule::round(agent).await;
    let failures = execute::remembered(memory).failures.clone();
    let mut world = match look(agent, failures).await {
        Ok(world) => world,
        Err(error) => {
            let complaint = format!(
                "cannot look at what there is: {}",
                sys::error_report::chain(&error)
            );
            execute::remembered(memory).complain(complaint);
            return scheduled;
        }
    };
    execute::remembered(memory).take_in(&mut world);
    watch.follow(agent, &world);
    let (steps, order) = world.decide();
    for (id, run) in world.begun(&steps) {
        execute::remembered(memory).shares.begin(id, run);
    }
    agent.publish(Status {
        name: agent.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machines: world.readiness(),
        queued: world.queue.len(),
        guests: world.jobs.builds.len() + world.jobs.bootstraps.len() + world.jobs.copies.len(),
        notices: world.notices(),
    });
    agent.show_queue(QueueSnapshot {
        capacity: world.capacity.clone(),
        demands: world.demands.clone(),
        order,
    });
    let mut words = Vec::new();
    for step in steps {
        match step {
            Action::Say(id, message) => words.push((id, message)),
            step => execute::act(agent, memory, &world, step).await,
        }
    }
    execute::say(agent, words).await;
    world.wake_at().into_iter().chain(scheduled).min()
}
