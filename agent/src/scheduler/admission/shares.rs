//! How much of the host each submitter has had: start-time fair queueing, measured
//! in seconds of the whole host.
//!
//! Only who wants something is remembered: whoever comes, or comes back, begins
//! where those stand that are being served, so that nobody saves up by waiting and
//! nobody pays for an hour in which the host had nothing else to do.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::Submitter;
use jiff::Timestamp;

use super::resources::ResourcePool;
use crate::state::ResourceRequest;

/// How long a build is thought to last before one has been seen, in seconds.
const FIRST_GUESS: f64 = 60.0;
/// How much the newest build counts in what the next one is thought to last.
const NEWEST: f64 = 0.2;

/// A build that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunningUsage {
    /// Who asked for it.
    pub submitter: Submitter,
    /// Since when it runs.
    pub since: Timestamp,
    /// What its guest takes.
    pub request: ResourceRequest,
}

/// How much of the host each submitter has had.
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
    /// Takes in what runs now and whose builds could start: what ran before and does
    /// no more is charged, who came is placed, who went is forgotten.
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
        // Whoever has had more than the others must not lose that by a pause.
        self.spent
            .retain(|submitter, spent| wants(submitter) || *spent > clock);
        self.started.retain(|submitter, _| wants(submitter));
    }

    /// Takes in a build that is started, so that it counts however soon it is over.
    pub fn begin(&mut self, id: BuildId, run: RunningUsage) {
        self.running.insert(id, run);
    }

    /// What a submitter has had, with what its running builds will have had.
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

    /// When the newest running build of a submitter was started.
    pub fn last_start(&self, submitter: &Submitter) -> Option<Timestamp> {
        self.started.get(submitter).copied()
    }

    /// What a build that takes this part of the host is thought to take in all.
    pub fn expected(&self, weight: f64) -> f64 {
        self.seconds_expected * weight
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
