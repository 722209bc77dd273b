//! The fair-share usage of submitters, rebuilt from the records of the last hours, so that
//! a restart of the agent changes no submitter's share.

use std::collections::{BTreeMap, BTreeSet};

use config::BuildId;
use config::builds::{Build, State, Submitter};
use jiff::Timestamp;

use super::resources::ResourcePool;
use super::shares::{RunningUsage, Shares};
use crate::ResourceRequest;

/// One attempt at a build, or the wait for one, as the record states it.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageInterval {
    /// The build.
    pub id: BuildId,
    /// Its submitter.
    pub submitter: Submitter,
    /// The resources of its guest.
    pub request: ResourceRequest,
    /// The start of its wait.
    pub waits: Timestamp,
    /// The start of its guest, if it started.
    pub runs: Option<Timestamp>,
    /// The end of its guest, if it has ended.
    pub ends: Option<Timestamp>,
}

impl UsageInterval {
    /// Returns all intervals of a build. The record does not state the reason of a wait: all
    /// count as waits for resources.
    pub fn all_of(build: &Build, request: &ResourceRequest) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for phase in &build.phases {
            let at = phase.at;
            match (phase.state, all.last_mut()) {
                (State::Starting, Some(last)) => last.runs = last.runs.or(Some(at)),
                (State::Queued | State::Finished, Some(last)) => {
                    last.ends = last.ends.or(Some(at));
                }
                _ => {}
            }
            if phase.state == State::Queued {
                all.push(Self {
                    id: build.id,
                    submitter: build.submitter.clone(),
                    request: request.clone(),
                    waits: at,
                    runs: None,
                    ends: None,
                });
            }
        }
        all
    }
}

/// A change of a build in its interval.
#[derive(Debug, Clone, Copy)]
enum Change {
    Waits,
    Runs,
    Ends,
}

impl Shares {
    /// Returns the shares after these intervals on a host with these resources.
    pub fn of_history(intervals: &[UsageInterval], pool: &ResourcePool) -> Self {
        let mut changes: Vec<_> = intervals.iter().flat_map(changes).collect();
        // Those of one build are in their order already, and stay so.
        changes.sort_by_key(|(at, _, _)| *at);
        let mut shares = Self::default();
        let mut running: BTreeMap<BuildId, RunningUsage> = BTreeMap::new();
        let mut queued: BTreeMap<BuildId, &Submitter> = BTreeMap::new();
        let mut changes = changes.into_iter().peekable();
        while let Some((since, change, interval)) = changes.next() {
            queued.remove(&interval.id);
            match change {
                Change::Waits => {
                    queued.insert(interval.id, &interval.submitter);
                }
                Change::Runs => {
                    let submitter = interval.submitter.clone();
                    let request = interval.request.clone();
                    let run = RunningUsage {
                        submitter,
                        since,
                        request,
                    };
                    running.insert(interval.id, run);
                }
                Change::Ends => {
                    running.remove(&interval.id);
                }
            }
            // What happens at one time is seen at once.
            if changes.peek().is_some_and(|(next, ..)| *next == since) {
                continue;
            }
            let contenders: BTreeSet<_> = queued.values().copied().cloned().collect();
            shares.observe(running.clone(), &contenders, pool, since);
        }
        shares
    }
}

fn changes(interval: &UsageInterval) -> impl Iterator<Item = (Timestamp, Change, &UsageInterval)> {
    let changes = [
        (Some(interval.waits), Change::Waits),
        (interval.runs, Change::Runs),
        (interval.ends, Change::Ends),
    ];
    let known = changes
        .into_iter()
        .filter_map(|(at, change)| Some((at?, change)));
    known.map(move |(at, change)| (at, change, interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_counts_as_usage() {
        let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
        let second = |second| Timestamp::from_second(second).unwrap();
        let (task, now) = ("0".repeat(64).parse().unwrap(), second(1));
        let toolchain = "default".parse().unwrap();
        let mut build = Build::new(BuildId(7), request, toolchain, task, Submitter::root(), now);
        let told = |build: &Build| {
            let all = UsageInterval::all_of(build, &ResourceRequest::default()).into_iter();
            let seconds = |time: Option<Timestamp>| time.map(Timestamp::as_second);
            all.map(|it| (it.waits.as_second(), seconds(it.runs), seconds(it.ends)))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&build), [(1, None, None)]);
        for (state, at) in [
            (State::Starting, 2),
            (State::Running, 3),
            (State::Queued, 5),
            (State::Starting, 6),
        ] {
            build.enter(state, second(at)).unwrap();
        }
        assert_eq!(told(&build), [(1, Some(2), Some(5)), (5, Some(6), None)]);
        build.enter(State::Running, second(7)).unwrap();
        build.enter(State::Storing, second(8)).unwrap();
        build.enter(State::Finished, second(9)).unwrap();
        assert_eq!(told(&build), [(1, Some(2), Some(5)), (5, Some(6), Some(9))]);
    }
}
