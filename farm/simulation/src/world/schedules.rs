//! The schedules: the rounds of coordinators, the requests of clients, and the invariants.

use std::collections::BTreeMap;

use config::builds::Priority;
use config::schedule::{RunResult, Timing};
use config::{BuildId, ScheduleName};
use farm_core::messages::{Request, Subject};
use farm_core::operation::{Answer, Operation, Unknown};
use farm_core::schedules::{Occasion, Schedule, ScheduleRow, due};
use farm_core::{Requirements, Work};
use jiff::{SignedDuration, Timestamp};
use timing::Times;

use super::{Call, Caller, STORM_MS, World};
use crate::Bug;
use crate::tables::{ScheduleRecord, State, time};

/// The time within which a run is made while faults are over.
const LATE: SignedDuration = SignedDuration::from_secs(3);
/// The time after the faults in which coordinators start and catch up.
const SETTLED_MS: u64 = 10_000;
/// The time by which the mark of a schedule may lie ahead of a clock that was set back.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(24);

/// The past of a schedule, which no actor knows.
#[derive(Debug)]
struct Past {
    /// The time up to which all is done.
    mark: Timestamp,
    /// The build of the last run.
    last: Option<BuildId>,
}

/// Facts about schedules that no actor knows.
#[derive(Debug, Default)]
pub(crate) struct ScheduleGhosts {
    pasts: BTreeMap<ScheduleName, Past>,
    /// The builds of times.
    runs: BTreeMap<(ScheduleName, Timestamp), BuildId>,
    /// The latest time that the clock of the store has shown.
    latest: Timestamp,
}

impl World {
    /// Reads the schedules.
    pub(super) fn coordinator_looks_at_schedules(&mut self, coordinator: usize) {
        let call = self.own_call(coordinator, Caller::Schedules);
        self.ask(call, Operation::Schedules);
    }

    /// Runs the schedules that are due.
    pub(super) fn schedules_answer(&mut self, call: Call, answer: Result<Answer, Unknown>) {
        let Ok(Answer::Schedules { mut now, schedules }) = answer else {
            return;
        };
        if self.has(Bug::ScheduleUsesWallClock) {
            let offset = self.coordinators[call.coordinator].wall_offset;
            now = time(self.store_clock() + offset - 1_000_000);
        }
        for (name, occasion) in due(now, &schedules).runs {
            let call = self.own_call(call.coordinator, Caller::Schedules);
            self.ask(call, Operation::RunSchedule(name, occasion));
        }
    }

    /// Adds, pauses, runs or removes a schedule.
    pub(super) fn client_schedules(&mut self) {
        let name = ["often", "seldom"][self.rng.usize(0..2)];
        let Ok(name) = name.parse::<ScheduleName>() else {
            return;
        };
        let request = match self.rng.u32(0..8) {
            0 => Request::PauseSchedule(name, true),
            1 | 2 => Request::PauseSchedule(name, false),
            3 => Request::RunSchedule(name, format!("n{}", self.rng.u32(..))),
            4 => Request::RemoveSchedule(name),
            _ => {
                let replaces = self.rng.bool();
                let schedule = self.any_schedule(name);
                self.upload(schedule.requirements.work.digests());
                Request::AddSchedule(Box::new(schedule), replaces)
            }
        };
        self.client_sends(request);
    }

    fn any_schedule(&mut self, name: ScheduleName) -> Schedule {
        let span = SignedDuration::from_millis(self.rng.i64(1_000..6_000));
        // Most have no sources, so that they are added at once and have many runs.
        let work = match self.rng.u32(0..4) {
            0 => self.any_work(),
            _ => Work::default(),
        };
        Schedule {
            name,
            timing: Timing::Every(span),
            coalesce: self.rng.u32(0..4) > 0,
            submitter: config::builds::Submitter::root(),
            priority: Priority::default(),
            requirements: Requirements {
                machine: self.client.machines()[0].clone(),
                toolchain: self.client.toolchain().clone(),
                cpus: 1,
                memory_mib: 100,
                resources: BTreeMap::new(),
                work,
            },
            subject: Subject::default(),
        }
    }

    /// Removes all schedules once coordinators have had the time to run what was due.
    pub(super) fn client_removes_schedules(&mut self) {
        if !self.is_settled() {
            return;
        }
        let names: Vec<_> = self.tables.schedules.keys().cloned().collect();
        for name in names {
            self.client_sends(Request::RemoveSchedule(name));
        }
    }

    /// Returns true once all coordinators have been alive for a while.
    fn is_settled(&self) -> bool {
        self.now >= STORM_MS + SETTLED_MS
    }

    /// Checks the effect of a transaction on a schedule.
    pub(super) fn check_schedules(
        &mut self,
        (before, builds): (&BTreeMap<ScheduleName, ScheduleRecord>, usize),
        operation: &Operation,
        answer: &Answer,
    ) {
        let now = time(self.store_clock());
        self.ghosts.schedules.latest = now.max(self.ghosts.schedules.latest);
        match (operation, answer) {
            (Operation::AddSchedule(schedule, _), _) => {
                self.schedule_changed(&schedule.name, before);
            }
            (Operation::PauseSchedule(name, _), _) => self.schedule_changed(name, before),
            (Operation::RemoveSchedule(name), _) => {
                if let Some(record) = before.get(name) {
                    self.check_overdue(&record.row(), record.paused, now);
                }
                self.ghosts.schedules.pasts.remove(name);
            }
            (Operation::RunSchedule(name, occasion), Answer::Ran(build, result)) => {
                if let Some(record) = before.get(name) {
                    let is_new = self.tables.builds.len() > builds;
                    self.check_run(record, occasion, (*build, *result, is_new));
                }
            }
            _ => {}
        }
    }

    /// Notes a schedule whose times were changed by a client.
    fn schedule_changed(
        &mut self,
        name: &ScheduleName,
        before: &BTreeMap<ScheduleName, ScheduleRecord>,
    ) {
        let Some(record) = self.tables.schedules.get(name) else {
            return;
        };
        let is_new = before.get(name).is_none_or(|it| it.row() != record.row());
        if is_new {
            let last = self.ghosts.schedules.pasts.remove(name);
            let past = Past {
                mark: time(record.since),
                last: last.and_then(|it| it.last),
            };
            self.ghosts.schedules.pasts.insert(name.clone(), past);
        }
    }

    /// Checks that no time has passed without a run, now that coordinators live.
    fn check_overdue(&mut self, row: &ScheduleRow, is_paused: bool, now: Timestamp) {
        let Some(past) = self.ghosts.schedules.pasts.get(&row.name) else {
            return;
        };
        let times = Times::new(&row.timing, row.added);
        let next = times.ok().and_then(|it| it.after(past.mark));
        if !is_paused && self.is_settled() && next.is_some_and(|it| it + LATE < now) {
            let name = &row.name;
            self.violate(format!("no time of a schedule is lost: {name}, {next:?}"));
        }
    }

    fn check_run(
        &mut self,
        before: &ScheduleRecord,
        occasion: &Occasion,
        (build, result, is_new): (BuildId, RunResult, bool),
    ) {
        let name = before.schedule.name.clone();
        let is_there = self.tables.builds.contains_key(&build);
        let ghosts = &mut self.ghosts.schedules;
        let Some(past) = ghosts.pasts.get_mut(&name) else {
            return;
        };
        let last = past.last;
        if is_new {
            past.last = Some(build);
        }
        let mut broken = Vec::new();
        if !is_there {
            broken.push("each run has its build");
        }
        let is_unfinished = |id: &BuildId| {
            let state = self.tables.builds.get(id).map(|it| &it.state);
            !matches!(state, Some(State::Finished(..)) | None)
        };
        if before.schedule.coalesce && is_new && last.as_ref().is_some_and(is_unfinished) {
            broken.push("no run submits while the build of the last one is unfinished");
        }
        if let Occasion::Due { due, until, .. } = occasion {
            let times = Times::new(&before.schedule.timing, time(before.added));
            let next = times.ok().and_then(|it| it.after(past.mark));
            if past.mark.duration_since(*until) <= SET_BACK_MAX && next != Some(*due) {
                broken.push("each time of a schedule runs once, and in order");
            }
            if *due > *until || *until > ghosts.latest {
                broken.push("no schedule runs before its time");
            }
            if before.paused {
                broken.push("no paused schedule runs");
            }
            past.mark = *until;
            if result == RunResult::Submitted {
                let known = ghosts.runs.insert((name.clone(), *due), build);
                if known.is_some_and(|known| known != build) {
                    broken.push("one build per schedule and time");
                }
            }
        }
        for invariant in broken {
            self.violate(format!("{invariant}: {name}, {occasion:?}, build {build}"));
        }
    }
}
