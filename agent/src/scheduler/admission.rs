//! Thinks: which of the builds that could start do start now, in which order, and
//! what the others wait for. Touches nothing.
//!
//! Every choice is between the submitters' next builds. The higher priority goes
//! first; of equal ones that of whoever has had less of the host. Two rules keep
//! everybody going: who gets nothing rises with time (`Rules::aging`), and a build
//! that is too large for the room that there is may be passed by smaller ones only
//! for a while (`Rules::patience`); then room is kept for it.

mod history;
mod resources;
mod shares;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use config::builds::{Priority, Submitter};
use config::{BuildId, MachineName};
use jiff::Timestamp;

pub use history::UsageInterval;
pub use resources::{Allocation, Capacity, JobId, Kept, Refusal, ResourceRequest, Room, listed};
pub use shares::{Run, Shares};

/// A build that could start now if there were room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The build.
    pub id: BuildId,
    /// Who asked for it.
    pub submitter: Submitter,
    /// How urgent it is.
    pub priority: Priority,
    /// Since when it waits.
    pub since: Timestamp,
    /// What it is built on.
    pub machine: MachineName,
    /// The volume that the machine is in.
    pub volume: usize,
    /// What its guest takes.
    pub demand: ResourceRequest,
}

/// How long is long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// After so long without a start, what waits counts as one priority higher; never
    /// if `None`.
    pub aging: Option<Duration>,
    /// So long smaller builds may pass one for which there is no room.
    pub patience: Duration,
}

/// Goes through all candidates and takes room for those that start; the others get
/// the reason why they do not.
pub fn admit(
    candidates: &[Candidate],
    room: &mut Room,
    shares: &Shares,
    rules: &Rules,
    now: Timestamp,
) -> Vec<(BuildId, Result<(), Refusal>)> {
    let mut lines = lines(candidates, room, shares, rules, now);
    let mut verdicts = Vec::with_capacity(candidates.len());
    while let Some(line) = next(&mut lines, rules, now) {
        let Some(candidate) = line.waiting.pop_front() else {
            continue;
        };
        let (machine, volume) = (&candidate.machine, candidate.volume);
        match room.refuse(machine, volume, &candidate.demand) {
            None => {
                room.hold(Allocation {
                    holder: JobId::Build(candidate.id),
                    machine: machine.clone(),
                    volume,
                    demand: candidate.demand,
                });
                line.level += shares.expected(room.weight(&candidate.demand));
                line.started = Some(now);
                verdicts.push((candidate.id, Ok(())));
            }
            Some(refusal) => {
                let waited = lasted(candidate.since, now);
                if waited >= rules.patience {
                    room.keep(candidate.id, &refusal);
                }
                verdicts.push((candidate.id, Err(refusal)));
            }
        }
    }
    verdicts
}

/// What one submitter waits for, the next one first.
struct Line<'c> {
    waiting: VecDeque<&'c Candidate>,
    level: f64,
    started: Option<Timestamp>,
}

impl Line<'_> {
    /// The priority of its next build, and how much it has gained by waiting.
    fn rank(&self, rules: &Rules, now: Timestamp) -> Option<(i64, f64, BuildId)> {
        let head = self.waiting.front()?;
        let since = self
            .started
            .map_or(head.since, |start| start.max(head.since));
        Some((aged(head.priority, since, rules, now), self.level, head.id))
    }
}

fn lines<'c>(
    candidates: &'c [Candidate],
    room: &Room,
    shares: &Shares,
    rules: &Rules,
    now: Timestamp,
) -> Vec<Line<'c>> {
    let mut lines: BTreeMap<&Submitter, Vec<&Candidate>> = BTreeMap::new();
    for candidate in candidates {
        lines
            .entry(&candidate.submitter)
            .or_default()
            .push(candidate);
    }
    let line = |(submitter, mut waiting): (&Submitter, Vec<&'c Candidate>)| {
        waiting.sort_by_key(|candidate| {
            let rank = aged(candidate.priority, candidate.since, rules, now);
            (std::cmp::Reverse(rank), candidate.id)
        });
        Line {
            waiting: waiting.into(),
            level: shares.level(submitter, room, now),
            started: shares.started(submitter),
        }
    };
    lines.into_iter().map(line).collect()
}

/// The submitter whose next build has its turn.
fn next<'l, 'c>(
    lines: &'l mut [Line<'c>],
    rules: &Rules,
    now: Timestamp,
) -> Option<&'l mut Line<'c>> {
    let ranked = lines
        .iter_mut()
        .filter_map(|line| Some((line.rank(rules, now)?, line)));
    let first = ranked.min_by(|((priority, level, id), _), ((other, less, before), _)| {
        let by_priority = other.cmp(priority);
        by_priority.then(level.total_cmp(less)).then(id.cmp(before))
    });
    first.map(|(_, line)| line)
}

fn aged(priority: Priority, since: Timestamp, rules: &Rules, now: Timestamp) -> i64 {
    let Some(aging) = rules.aging.filter(|aging| !aging.is_zero()) else {
        return priority.0.into();
    };
    let gained = lasted(since, now).as_secs() / aging.as_secs().max(1);
    i64::from(priority.0).saturating_add_unsigned(gained)
}

/// How long it was from one time to another; nothing if the clock was set back.
fn lasted(from: Timestamp, to: Timestamp) -> Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests;
