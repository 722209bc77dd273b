//! The schedules, and the transactions that change or run them.

use config::schedule::{RunResult, SCHEDULES_MAX};
use config::{BuildId, ScheduleName};
use farm_core::messages::Submission;
use farm_core::operation::Answer;
use farm_core::schedules::{Added, Occasion, Schedule, ScheduleRow};
use jiff::Timestamp;

use super::{State, Tables};

/// A schedule with its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// The schedule.
    pub schedule: Schedule,
    /// The time of its addition.
    pub added: u64,
    /// The mark: all times up to here are done.
    pub since: u64,
    /// True if it does not run by the clock.
    pub paused: bool,
    /// The build of the last run.
    pub last_build: Option<BuildId>,
}

impl ScheduleRecord {
    /// Returns the part that decides when it runs.
    pub fn row(&self) -> ScheduleRow {
        ScheduleRow {
            name: self.schedule.name.clone(),
            timing: self.schedule.timing.clone(),
            added: time(self.added),
            since: time(self.since),
        }
    }
}

/// Returns a time of the store, in milliseconds since 1970, as a value.
pub(crate) fn time(milliseconds: u64) -> Timestamp {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::MAX)
}

fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

impl Tables {
    pub(super) fn active_schedules(&self, now: u64) -> Answer {
        let active = self.schedules.values().filter(|it| !it.paused);
        Answer::Schedules {
            now: time(now),
            schedules: active.map(ScheduleRecord::row).collect(),
        }
    }

    pub(super) fn add_schedule(&mut self, now: u64, schedule: Schedule, replaces: bool) -> Answer {
        let unknown = self.need(now, &schedule.requirements.work.digests());
        let is_full = self.schedules.len() >= SCHEDULES_MAX as usize;
        let added = match self.schedules.get(&schedule.name) {
            Some(known) if known.schedule == schedule => Added::Unchanged,
            Some(_) if !replaces => Added::Exists,
            Some(_) => Added::Replaced,
            None if is_full => Added::Full,
            None => Added::New,
        };
        if matches!(added, Added::New | Added::Replaced) {
            if !unknown.is_empty() {
                return Answer::Missing(unknown);
            }
            let known = self.schedules.get(&schedule.name);
            let record = ScheduleRecord {
                added: now,
                since: now,
                // The pause and the unfinished build of the old one count for the new one.
                paused: known.is_some_and(|it| it.paused),
                last_build: known.and_then(|it| it.last_build),
                schedule,
            };
            self.schedules.insert(record.schedule.name.clone(), record);
        }
        Answer::ScheduleAdded(added)
    }

    pub(super) fn remove_schedule(&mut self, name: &ScheduleName) -> Answer {
        self.schedules.remove(name);
        Answer::Done
    }

    pub(super) fn pause_schedule(&mut self, now: u64, name: &ScheduleName, paused: bool) -> Answer {
        let Some(record) = self.schedules.get_mut(name) else {
            return Answer::NotFound;
        };
        if record.paused && !paused {
            record.since = record.since.max(now);
        }
        record.paused = paused;
        Answer::Done
    }

    pub(super) fn run_schedule(
        &mut self,
        now: u64,
        name: &ScheduleName,
        occasion: &Occasion,
    ) -> Answer {
        let Some(record) = self.schedules.get(name) else {
            return match occasion {
                Occasion::Due { .. } => Answer::Stale,
                Occasion::Now(_) => Answer::NotFound,
            };
        };
        if let Occasion::Due { read, .. } = occasion
            && (record.paused || record.row() != **read)
        {
            return Answer::Stale;
        }
        let key = occasion.key(name);
        let schedule = record.schedule.clone();
        let known = self.builds.iter().find(|(_, it)| it.submission.key == key);
        let known = known.map(|(build, _)| *build);
        let unfinished = record.last_build.filter(|build| {
            let state = self.builds.get(build).map(|it| &it.state);
            schedule.coalesce && !matches!(state, Some(State::Finished(..)) | None)
        });
        let (build, result) = match (known, unfinished) {
            (Some(build), _) => (build, RunResult::Submitted),
            (None, Some(build)) => (build, RunResult::Coalesced),
            (None, None) => (self.submit_run(now, key, schedule), RunResult::Submitted),
        };
        if let Some(record) = self.schedules.get_mut(name) {
            if known.is_none() {
                record.last_build = Some(build);
            }
            if let Occasion::Due { until, .. } = occasion {
                record.since = milliseconds(*until);
            }
        }
        Answer::Ran(build, result)
    }

    fn submit_run(&mut self, now: u64, key: String, schedule: Schedule) -> BuildId {
        let submission = Submission {
            key,
            submitter: schedule.submitter,
            priority: schedule.priority,
            requirements: schedule.requirements,
            subject: schedule.subject,
        };
        self.add_build(now, submission)
    }
}
