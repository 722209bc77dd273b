//! The one loop of the agent: look, plan, act; the same at start and later. Woken
//! by directories that change, by guests that end, by requests, and by a slow timer.

mod act;
mod look;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use config::builds::Status;
use tokio::time::{Instant, timeout};
use tracing::{error, info};

use crate::host::Host;
use crate::watch::Watch;

pub(crate) use act::{give_up, log_report, take_up};
pub use look::LookError;
pub(crate) use look::look;
pub use plan::{Failure, Jobs, Pair, Seen, Step, Waiting, World};

/// How long the loop rests when nothing wakes it.
const REST: Duration = Duration::from_mins(1);
/// How long it waits after it was woken, so that one change is not seen in parts.
const SETTLE: Duration = Duration::from_millis(20);

/// What the loop remembers from one round to the next.
#[derive(Debug, Default)]
pub struct Memory {
    /// The bootstraps that failed.
    pub failures: BTreeMap<Pair, Failure>,
    /// What was last said to be wrong, so that it is said once.
    complaint: String,
}

impl Memory {
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
    let memory = Arc::new(std::sync::Mutex::new(Memory::default()));
    while !host.stopping.is_cancelled() {
        let began = Instant::now();
        round(&host, &memory, &mut watch).await;
        let rest = REST.saturating_sub(began.elapsed());
        tokio::select! {
            () = host.stopping.cancelled() => return,
            _ = timeout(rest, host.wake.notified()) => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// Looks, plans and acts once.
async fn round(host: &Arc<Host>, memory: &Arc<std::sync::Mutex<Memory>>, watch: &mut Watch) {
    let failures = act::remembered(memory).failures.clone();
    let world = match look(host, failures).await {
        Ok(world) => world,
        Err(error) => {
            let complaint = format!("cannot look at what there is: {}", crate::chain(&error));
            return act::remembered(memory).complain(complaint);
        }
    };
    act::remembered(memory).complain(world.notices().join("; "));
    watch.follow(host, &world);
    let steps = world.plan();
    host.publish(Status {
        name: host.settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        machines: world.readiness(),
        queued: world.queue.len(),
        guests: world.jobs.builds.len() + world.jobs.bootstraps.len(),
        notices: world.notices(),
    });
    for step in steps {
        act::act(host, memory, &world, step).await;
    }
}
