//! The fair-share usage of submitters: start-time fair queueing, measured in seconds of
//! the whole host.
//!
//! Usage is kept only for submitters with builds. One that comes, or comes back, starts
//! with the least usage of those that are served, so that idle time earns no credit, and
//! use of an otherwise idle host costs none.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::Submitter;
use jiff::Timestamp;

use super::resources::ResourcePool;
use crate::ResourceRequest;

/// The expected duration of a build before one has ended, in seconds.
const FIRST_GUESS: f64 = 60.0;
/// The weight of the newest build in the expected duration.
const NEWEST: f64 = 0.2;

/// A build that runs, as fair-share accounting counts it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningUsage {
    /// Its submitter.
    pub submitter: Submitter,
    /// The start of its guest.
    pub since: Timestamp,
    /// The resources of its guest.
    pub request: ResourceRequest,
}

/// The fair-share usage of submitters.
#[derive(Debug, Clone)]
pub struct Shares {
    clock: f64,
    seconds_expected: f64,
    spent: BTreeMap<Submitter, f64>,
    started: BTreeMap<Submitter, Timestamp>,
    running: BTreeMap<BuildId, RunningUsage>,
}

impl Default for Shares {
    fn default() -> Self {
        Self {
            clock: 0.0,
            seconds_expected: FIRST_GUESS,
            spent: BTreeMap::new(),
            started: BTreeMap::new(),
            running: BTreeMap::new(),
        }
    }
}

impl Shares {
    /// Updates the usage from the running builds and the submitters that wait for resources:
    /// charges builds that have ended, adds new submitters, and drops those without builds.
    pub fn observe(
        &mut self,
        running: BTreeMap<BuildId, RunningUsage>,
        queued: &BTreeSet<Submitter>,
        pool: &ResourcePool,
        now: Timestamp,
    ) {
        let before = std::mem::take(&mut self.running);
        for (_, run) in before.iter().filter(|(id, _)| !running.contains_key(id)) {
            let seconds = seconds(run.since, now);
            *self.spent.entry(run.submitter.clone()).or_default() +=
                seconds * pool.weight(&run.request);
            self.seconds_expected += NEWEST * (seconds - self.seconds_expected);
        }
        self.running = running;
        let served: BTreeSet<_> = self.running.values().map(|run| &run.submitter).collect();
        // Where builds are short, it may be that none runs at the moment we look.
        let just_now = before.values().map(|run| &run.submitter);
        let readiness_of = just_now
            .chain(served.iter().copied())
            .filter_map(|submitter| self.spent.get(submitter));
        if let Some(least) = readiness_of.copied().min_by(f64::total_cmp) {
            self.clock = self.clock.max(least);
        }
        let clock = self.clock;
        for submitter in served.into_iter().chain(queued) {
            self.spent.entry(submitter.clone()).or_insert(clock);
        }
        for run in self.running.values() {
            let last = self
                .started
                .entry(run.submitter.clone())
                .or_insert(run.since);
            *last = run.since.max(*last);
        }
        let running = &self.running;
        let wants = |submitter: &Submitter| {
            queued.contains(submitter) || running.values().any(|run| run.submitter == *submitter)
        };
        // A submitter who is ahead of the others stays so after a pause.
        self.spent
            .retain(|submitter, spent| wants(submitter) || *spent > clock);
        self.started.retain(|submitter, _| wants(submitter));
    }

    /// Adds a build that starts, so that it is charged even if it ends before the next update.
    pub fn begin(&mut self, id: BuildId, run: RunningUsage) {
        self.running.insert(id, run);
    }

    /// Returns the usage of a submitter, the expected usage of its running builds included.
    pub fn usage(&self, submitter: &Submitter, pool: &ResourcePool, now: Timestamp) -> f64 {
        let own = self
            .running
            .values()
            .filter(|run| run.submitter == *submitter);
        let pending = own.map(|run| {
            seconds(run.since, now).max(self.seconds_expected) * pool.weight(&run.request)
        });
        self.spent.get(submitter).copied().unwrap_or(self.clock) + pending.sum::<f64>()
    }

    /// Returns the start of the newest running build of a submitter.
    pub fn last_start(&self, submitter: &Submitter) -> Option<Timestamp> {
        self.started.get(submitter).copied()
    }

    /// Returns the expected usage of a build that takes this fraction of the host.
    pub fn expected(&self, weight: f64) -> f64 {
        self.seconds_expected * weight
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
