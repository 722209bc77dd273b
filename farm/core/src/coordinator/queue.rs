//! The first builds of the queue, which a coordinator reads once for many polls.
//!
//! A build that is no longer in the queue costs a claim that fails: the store alone decides.

use std::collections::{BTreeMap, BTreeSet};

use config::builds::Submitter;
use config::{BuildId, MachineName};

use crate::operation::{Answer, Candidate, Operation, Pick};
use crate::trials::TrialNumber;
use crate::{Epoch, Moment};

/// The time for which builds that were read count as the queue.
const FRESH_MS: u64 = 1_000;
/// The time after which a claim without an answer has failed.
const CLAIM_MS: u64 = 10_000;
/// The most machines of earlier polls.
const MACHINES_MAX: usize = 1_000;
/// The builds that are read for one that a poll looks at.
const AHEAD: u64 = 4;
/// The builds of one submitter and machine from which on coordinators begin at different ones.
const LONG_LANE: usize = 64;

/// The places at which coordinators begin in long lanes.
const QUARTERS: usize = 4;

/// The builds of one submitter on one machine, which the store gives in the order of their numbers.
type Lane = (MachineName, Submitter);

/// The part of the queue that a coordinator has read.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    read: Option<Moment>,
    machines: BTreeSet<MachineName>,
    most: u64,
    builds: Vec<Candidate>,
    used_ms: BTreeMap<Submitter, u64>,
    /// The number of builds that may start on candidates, less those that this coordinator has placed since.
    vacancies: BTreeMap<TrialNumber, usize>,
    /// The number of builds that were read of each lane.
    lanes: BTreeMap<Lane, usize>,
    /// The builds that this coordinator claims, with their epochs as they were read.
    taken: BTreeMap<BuildId, (Epoch, Moment)>,
    /// The place in long lanes at which this coordinator begins, in quarters.
    quarter: usize,
}

impl Queue {
    /// Creates a queue that was not read yet. Coordinators with different numbers seldom claim the same
    /// builds of a long queue.
    pub fn new(coordinator: u64) -> Self {
        Self {
            quarter: usize::try_from(coordinator).unwrap_or(0) % QUARTERS,
            ..Self::default()
        }
    }

    /// Returns true if nothing waited when the queue was last read.
    pub fn is_empty(&self) -> bool {
        self.builds.is_empty()
    }

    /// Returns the operation that reads the queue, for these machines and those of earlier polls.
    pub fn reading(&self, machines: &[MachineName], most: u64) -> Operation {
        let known = self.machines.iter().take(MACHINES_MAX);
        let all: BTreeSet<_> = known.chain(machines).cloned().collect();
        Operation::Candidates {
            machines: all.into_iter().collect(),
            most: self.most.max(most.saturating_mul(AHEAD)),
        }
    }

    /// Notes the answer to [`Self::reading`] that was asked for at a time.
    pub fn note(&mut self, asked: Moment, operation: &Operation, answer: &Answer) {
        let Operation::Candidates { machines, most } = operation else {
            return;
        };
        let Answer::Candidates {
            builds,
            used_ms,
            vacancies,
        } = answer
        else {
            return;
        };
        self.read = Some(asked);
        self.machines = machines.iter().cloned().collect();
        self.most = *most;
        self.builds.clone_from(builds);
        self.used_ms.clone_from(used_ms);
        self.vacancies.clone_from(vacancies);
        self.lanes.clear();
        for build in builds {
            *self.lanes.entry(lane(build)).or_default() += 1;
        }
        self.taken
            .retain(|_, (_, since)| asked.since(*since) < CLAIM_MS);
        self.rotate();
    }

    /// Returns true if the queue was read so lately that it need not be read for those who wait.
    pub fn is_recent(&self, now: Moment) -> bool {
        self.read.is_some_and(|it| now.since(it) < FRESH_MS / 2)
    }

    /// Demands that the queue is read again before it is used.
    pub fn expire(&mut self) {
        self.read = None;
    }

    /// Returns the first builds for machines, at most some of one submitter and machine, or `None` if the
    /// queue must be read first.
    pub fn answer(&self, now: Moment, machines: &[MachineName], most: u64) -> Option<Answer> {
        let is_fresh = self.read.is_some_and(|it| now.since(it) < FRESH_MS);
        if !is_fresh || machines.iter().any(|it| !self.machines.contains(it)) {
            return None;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut left: BTreeMap<Lane, usize> = BTreeMap::new();
        let mut builds = Vec::new();
        for build in &self.builds {
            if machines.contains(&build.requirements.machine) && !self.is_taken(build) {
                let found = left.entry(lane(build)).or_default();
                *found += 1;
                if *found <= most {
                    builds.push(build.clone());
                }
            }
        }
        let whole = usize::try_from(self.most).unwrap_or(usize::MAX);
        let is_used_up = |(lane, read): (&Lane, &usize)| {
            *read >= whole && machines.contains(&lane.0) && !left.contains_key(lane)
        };
        if self.lanes.iter().any(is_used_up) {
            return None;
        }
        Some(Answer::Candidates {
            builds,
            used_ms: self.used_ms.clone(),
            vacancies: self.vacancies.clone(),
        })
    }

    /// Notes the builds of a claim that begins.
    pub fn claiming(&mut self, now: Moment, picks: &[Pick]) {
        for pick in picks {
            self.taken.insert(pick.build, (pick.epoch, now));
            let build = self.builds.iter().find(|it| it.build == pick.build);
            if let Some(submitter) = build.map(|it| it.submitter.clone()) {
                *self.used_ms.entry(submitter).or_default() += pick.charge_ms;
            }
            let vacancies = pick.trial.and_then(|it| self.vacancies.get_mut(&it));
            if let Some(vacancies) = vacancies {
                *vacancies = vacancies.saturating_sub(1);
            }
        }
    }

    /// Notes the answer to a claim. If others have its builds, the queue is read again, and this coordinator
    /// begins elsewhere in long lanes, because another one begins at the same place. Builds of a host that
    /// has polled again are still there.
    pub fn claimed(&mut self, picks: &[Pick], answer: &Answer) {
        let grants = match answer {
            Answer::Claimed(grants) => grants,
            Answer::Overtaken => {
                for pick in picks {
                    self.taken.remove(&pick.build);
                }
                return;
            }
            _ => return,
        };
        let has = |pick: &&Pick| grants.iter().any(|it| it.lease.build == pick.build);
        let mut lost = picks.iter().filter(|it| !has(it)).peekable();
        if lost.peek().is_some() {
            self.quarter = (self.quarter + 1) % QUARTERS;
            self.expire();
        }
        for pick in lost {
            self.taken.remove(&pick.build);
        }
    }

    fn is_taken(&self, build: &Candidate) -> bool {
        let taken = self.taken.get(&build.build);
        taken.is_some_and(|(epoch, _)| *epoch == build.epoch)
    }

    /// Moves the first builds of long lanes to their ends.
    fn rotate(&mut self) {
        let mut lanes: BTreeMap<Lane, Vec<Candidate>> = BTreeMap::new();
        for build in std::mem::take(&mut self.builds) {
            lanes.entry(lane(&build)).or_default().push(build);
        }
        for mut builds in lanes.into_values() {
            if builds.len() >= LONG_LANE {
                let first = builds.len() / QUARTERS * self.quarter;
                builds.rotate_left(first);
            }
            self.builds.append(&mut builds);
        }
    }
}

fn lane(build: &Candidate) -> Lane {
    (build.requirements.machine.clone(), build.submitter.clone())
}

#[cfg(test)]
mod tests;
