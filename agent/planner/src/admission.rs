//! Admission: the pure decision which ready builds start now, in which order, and for
//! which resource the others wait.
//!
//! Every choice is between the submitters' next builds. A higher priority goes first;
//! among equal ones the submitter with less fair-share usage. Two rules prevent
//! starvation: a submitter without a start rises in priority with time
//! ([`Rules::aging`]), and smaller builds may backfill before one that does not fit only
//! for a while ([`Rules::backfill`]); then resources are reserved for it.

mod history;
mod resources;
mod shares;
mod unschedulable;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use config::builds::{Priority, Submitter};
use config::{BuildId, ImageKey};
use jiff::Timestamp;
use store::VolumeId;

pub use history::UsageInterval;
pub use resources::{Allocation, ResourcePool};
pub use shares::{RunningUsage, Shares};
pub use unschedulable::Unschedulable;
pub(crate) use unschedulable::listed;

#[cfg(test)]
use unschedulable::Resource;

use crate::{JobId, ResourceRequest};

/// A build that starts now if the host has resources for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The build.
    pub id: BuildId,
    /// The image that it runs on.
    pub key: ImageKey,
    /// Its submitter.
    pub submitter: Submitter,
    /// Its priority.
    pub priority: Priority,
    /// The time of its submission.
    pub since: Timestamp,
    /// The volume of its machine.
    pub volume: VolumeId,
    /// The resources that its guest takes.
    pub request: ResourceRequest,
    /// The resources that its auxiliary guests take, which start with it or not at all.
    pub auxiliaries: Vec<Allocation>,
}

impl Candidate {
    /// Returns the allocations of all its guests.
    pub fn allocations(&self) -> Vec<Allocation> {
        let own = Allocation {
            job: JobId::Build(self.id),
            machine: self.key.machine.clone(),
            volume: self.volume,
            request: self.request.clone(),
        };
        let others = self.auxiliaries.iter().cloned();
        std::iter::once(own).chain(others).collect()
    }

    /// Returns the resources that all its guests take together.
    pub fn total(&self) -> ResourceRequest {
        let others = self.auxiliaries.iter();
        others.fold(self.request.clone(), |sum, it| sum.plus(&it.request))
    }
}

/// The rules of admission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// The time without a start after which a submitter rises by one priority; `None`
    /// for never.
    pub aging: Option<Duration>,
    /// The time for which smaller builds may start before one that does not fit.
    pub backfill: Duration,
}

/// Decides on all candidates in scheduling order, and allocates resources for those that
/// start; the others get the reason for which they do not.
pub fn admit(
    candidates: &[Candidate],
    pool: &mut ResourcePool,
    shares: &Shares,
    rules: &Rules,
    now: Timestamp,
) -> Vec<(BuildId, Result<(), Unschedulable>)> {
    let mut queues = queues(candidates, pool, shares, rules, now);
    let mut verdicts = Vec::with_capacity(candidates.len());
    while let Some(queue) = next(&mut queues, rules, now) {
        let Some(candidate) = queue.waiting.pop_front() else {
            continue;
        };
        let guests = candidate.allocations();
        match pool.check_together(&guests) {
            None => {
                for guest in guests {
                    pool.allocate(guest);
                }
                queue.usage += shares.expected(pool.weight(&candidate.total()));
                queue.last_start = Some(now);
                verdicts.push((candidate.id, Ok(())));
            }
            Some(unschedulable) => {
                if elapsed(candidate.since, now) >= rules.backfill {
                    pool.reserve_for(candidate.id, &unschedulable);
                }
                verdicts.push((candidate.id, Err(unschedulable)));
            }
        }
    }
    verdicts
}

/// The candidates of one submitter, the next one first.
struct SubmitterQueue<'c> {
    waiting: VecDeque<&'c Candidate>,
    usage: f64,
    last_start: Option<Timestamp>,
}

impl SubmitterQueue<'_> {
    /// Returns the priority of the next build with aging, the submitter's usage, and the
    /// build.
    fn rank(&self, rules: &Rules, now: Timestamp) -> Option<(i64, f64, BuildId)> {
        let head = self.waiting.front()?;
        let since = self
            .last_start
            .map_or(head.since, |start| start.max(head.since));
        Some((aged(head.priority, since, rules, now), self.usage, head.id))
    }
}

fn queues<'c>(
    candidates: &'c [Candidate],
    pool: &ResourcePool,
    shares: &Shares,
    rules: &Rules,
    now: Timestamp,
) -> Vec<SubmitterQueue<'c>> {
    let mut queues: BTreeMap<&Submitter, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        queues
            .entry(&candidate.submitter)
            .or_default()
            .push(candidate);
    }
    let queue = |(submitter, mut waiting): (&Submitter, Vec<&'c Candidate>)| {
        waiting.sort_by_key(|candidate| {
            let rank = aged(candidate.priority, candidate.since, rules, now);
            (std::cmp::Reverse(rank), candidate.id)
        });
        SubmitterQueue {
            waiting: waiting.into(),
            usage: shares.usage(submitter, pool, now),
            last_start: shares.last_start(submitter),
        }
    };
    queues.into_iter().map(queue).collect()
}

/// Returns the queue of the submitter whose turn it is.
fn next<'q, 'c>(
    queues: &'q mut [SubmitterQueue<'c>],
    rules: &Rules,
    now: Timestamp,
) -> Option<&'q mut SubmitterQueue<'c>> {
    let ranked = queues
        .iter_mut()
        .filter_map(|queue| Some((queue.rank(rules, now)?, queue)));
    let first = ranked.min_by(|((priority, usage, id), _), ((other, less, before), _)| {
        let by_priority = other.cmp(priority);
        by_priority.then(usage.total_cmp(less)).then(id.cmp(before))
    });
    first.map(|(_, queue)| queue)
}

fn aged(priority: Priority, since: Timestamp, rules: &Rules, now: Timestamp) -> i64 {
    let Some(aging) = rules.aging.filter(|aging| !aging.is_zero()) else {
        return priority.0.into();
    };
    let gained = elapsed(since, now).as_secs() / aging.as_secs().max(1);
    i64::from(priority.0).saturating_add_unsigned(gained)
}

/// Returns the time between two times; zero if the clock was set back.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
