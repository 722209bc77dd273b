//! The one loop of the agent: look, plan, act; the same at start and later. Woken
//! by directories that change, by guests that end, by requests, and by a slow timer.

mod act;
mod admission;
mod capacity;
mod look;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::BuildId;
use config::builds::{Build, Status};
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::host::Host;
use crate::records::RecordsError;
use crate::schedule;
use crate::watch::Watch;

pub(crate) use act::{give_up, log_report, take_up};
pub use admission::{
    Candidate, Capacity, Demand, Holder, Holding, Kept, Refusal, Room, Rules, Run, Shares, Stretch,
    admit, listed,
};
pub use look::LookError;
pub(crate) use look::look;
pub use plan::{Ending, Failure, Jobs, Pair, Running, Seen, Step, Waiting, World};

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
    pub failures: BTreeMap<Pair, Failure>,
    /// What submitters have had of the host.
    shares: Shares,
    /// What an earlier agent did, until we have reckoned with it.
    past: Vec<Build>,
    /// What was last said to be wrong, so that it is said once.
    complaint: String,
}

/// What the loop last found of the queue.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// What the host can give.
    pub capacity: Capacity,
    /// What guests take of it.
    pub demands: BTreeMap<Pair, Demand>,
    /// The builds that could start, in the order of their turns.
    pub order: Vec<BuildId>,
}

impl Memory {
    /// Takes in what was seen, and adds to it what only we remember.
    fn take_in(&mut self, world: &mut World) {
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
pub async fn run(host: Arc<Host>, mut watch: Watch) {
    let memory = Memory {
        past: past(&host).await,
        ..Memory::default()
    };
    let memory = Arc::new(std::sync::Mutex::new(memory));
    while !host.stopping.is_cancelled() {
        let began = Instant::now();
        let wake_at = round(&host, &memory, &mut watch).await;
        let rest = REST.saturating_sub(began.elapsed()).min(until(wake_at));
        tokio::select! {
            () = host.stopping.cancelled() => return,
            () = sleep(rest.max(SETTLE)) => {}
            () = host.wake.notified() => {}
            // Whoever asks for something meanwhile does not wait for that.
            () = host.stirred.notified() => drop(timeout(SETTLE, host.wake.notified()).await),
        }
    }
}

/// The builds that what submitters have had is reckoned by. Without them everybody
/// begins anew.
async fn past(host: &Host) -> Vec<Build> {
    let builds = async {
        let mut builds = host.records.last_finished(PAST_MAX).await?;
        let recent = Timestamp::now().saturating_sub(PAST).unwrap_or_default();
        builds.retain(|build| build.finished >= Some(recent));
        builds.extend(host.records.unfinished().await?);
        Ok::<_, RecordsError>(builds)
    };
    builds.await.unwrap_or_else(|error| {
        warn!(
            "cannot see what submitters have had: {}",
            crate::chain(&error)
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
    host: &Arc<Host>,
    memory: &Arc<std::sync::Mutex<Memory>>,
    watch: &mut Watch,
) -> Option<Timestamp> {
    // First, so that what they ask for is seen.
    let scheduled = schedule::round(host).await;
    let failures = act::remembered(memory).failures.clone();
    let mut world = match look(host, failures).await {
        Ok(world) => world,
        Err(error) => {
            let complaint = format!("cannot look at what there is: {}", crate::chain(&error));
            act::remembered(memory).complain(complaint);
            return scheduled;
        }
    };
    act::remembered(memory).take_in(&mut world);
    watch.follow(host, &world);
    let (steps, order) = world.decide();
    for (id, run) in world.begun(&steps) {
        act::remembered(memory).shares.begin(id, run);
    }
    host.publish(Status {
        name: host.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machines: world.readiness(),
        queued: world.queue.len(),
        guests: world.jobs.builds.len() + world.jobs.bootstraps.len() + world.jobs.copies.len(),
        notices: world.notices(),
    });
    host.show_queue(Outlook {
        capacity: world.capacity.clone(),
        demands: world.demands.clone(),
        order,
    });
    let mut words = Vec::new();
    for step in steps {
        match step {
            Step::Say(id, message) => words.push((id, message)),
            step => act::act(host, memory, &world, step).await,
        }
    }
    act::say(host, words).await;
    world.wake_at().into_iter().chain(scheduled).min()
}
