//! Schedules of a farm: builds that any coordinator submits by the clock of the store.
//!
//! A run names the schedule as it was read: its timing, its addition and its mark. It has no effect if one of
//! them has changed since, so that coordinators need not agree on who runs what.

use config::ScheduleName;
use config::builds::{Priority, Submitter};
use config::schedule::Timing;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use timing::{ScheduleState, Times, TimingError, plan};

use crate::Requirements;
use crate::model::Subject;

/// The prefix of the idempotency keys of runs. Clients may not use it.
pub const KEY_PREFIX: &str = "schedule ";

/// A schedule: its timing, and the builds of its runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The name.
    pub name: ScheduleName,
    /// The timing.
    pub timing: Timing,
    /// True if a run submits nothing while the build of an earlier run is unfinished.
    pub coalesce: bool,
    /// The submitter of the builds.
    pub submitter: Submitter,
    /// The priority of the builds.
    pub priority: Priority,
    /// The needs of the builds, and their work.
    pub requirements: Requirements,
    /// The names of what is built.
    #[serde(flatten)]
    pub subject: Subject,
}

/// The document with which a client adds a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSchedule {
    /// The name.
    pub name: ScheduleName,
    /// The timing, with the time zone of a cron pattern.
    pub timing: Timing,
    /// True if a run submits nothing while the build of an earlier run is unfinished.
    #[serde(default = "yes")]
    pub coalesce: bool,
    /// The submitter, if another one than the client. Only administrators may set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// The priority of the builds.
    #[serde(default)]
    pub priority: Priority,
    /// The needs of the builds, and their work.
    pub requirements: Requirements,
    /// The names of what is built.
    #[serde(flatten)]
    pub subject: Subject,
    /// Replaces a schedule of the same name.
    #[serde(default)]
    pub replace: bool,
    /// Returns the schedule as it would be, and adds nothing.
    #[serde(default, rename = "rehearse")]
    pub dry_run: bool,
}

fn yes() -> bool {
    true
}

impl NewSchedule {
    /// Returns the schedule of a submitter.
    pub fn of(self, submitter: Submitter) -> Schedule {
        Schedule {
            name: self.name,
            timing: self.timing,
            coalesce: self.coalesce,
            submitter,
            priority: self.priority,
            requirements: self.requirements,
            subject: self.subject,
        }
    }
}

/// The part of a schedule that decides when it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// The name.
    pub name: ScheduleName,
    /// The timing.
    pub timing: Timing,
    /// The time of its addition.
    pub added: Timestamp,
    /// The mark: all times up to here are done.
    pub since: Timestamp,
}

/// The reason for which a schedule runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occasion {
    /// A time has come. The run has no effect if the schedule has changed since it was read.
    Due {
        /// The schedule as it was read.
        read: Box<ScheduleRow>,
        /// The first time that is not done.
        due: Timestamp,
        /// The new mark: the time of the store when the schedule was read.
        until: Timestamp,
    },
    /// A client asks for it, with this idempotency key. The mark stays.
    Now(String),
}

impl Occasion {
    /// Returns the idempotency key of the build. It depends on the name and the time alone, so that there is
    /// one build for each time, even if a clock is set back.
    pub fn key(&self, name: &ScheduleName) -> String {
        match self {
            Self::Due { due, .. } => format!("{KEY_PREFIX}{name} {due}"),
            Self::Now(key) => key.clone(),
        }
    }
}

/// The result of adding a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It was added.
    New,
    /// It replaced another one of its name.
    Replaced,
    /// The same schedule exists already, such as by an earlier repetition.
    Unchanged,
    /// Refused: another schedule has its name.
    Exists,
    /// Refused: the farm has as many schedules as it may have.
    Full,
}

/// The runs that are due, and the schedules whose timing this computer cannot compute.
#[derive(Debug, Default)]
pub struct Round {
    /// The runs.
    pub runs: Vec<(ScheduleName, Occasion)>,
    /// The schedules that do not run, such as because their time zone is unknown here.
    pub invalid: Vec<(ScheduleName, TimingError)>,
}

/// Returns the runs of schedules that are due at a time of the store. One run makes up for all times that
/// were missed.
pub fn due(now: Timestamp, schedules: &[ScheduleRow]) -> Round {
    let mut round = Round::default();
    for row in schedules {
        let state = match state(row) {
            Ok(state) => state,
            Err(error) => {
                round.invalid.push((row.name.clone(), error));
                continue;
            }
        };
        for (name, due) in plan(&[state], now).due {
            let occasion = Occasion::Due {
                read: Box::new(row.clone()),
                due,
                until: now,
            };
            round.runs.push((name, occasion));
        }
    }
    round
}

/// Returns the next time of a schedule, which may have passed. An invalid timing has none.
pub fn next(row: &ScheduleRow, now: Timestamp) -> Option<Timestamp> {
    state(row).ok().and_then(|it| it.next(now))
}

/// Checks the timing of a new schedule, and returns its first time.
///
/// # Errors
/// The timing is invalid, has no time zone, or never comes.
pub fn check(timing: &Timing, now: Timestamp) -> Result<Timestamp, String> {
    if let Timing::Cron(cron) = timing
        && cron.zone.is_none()
    {
        return Err(
            "a schedule of a farm names its time zone, such as `Europe/Berlin` or `UTC`, because \
             coordinators may be in several"
                .to_owned(),
        );
    }
    let times = Times::new(timing, now).map_err(|error| error.to_string())?;
    let first = times.after(now);
    first.ok_or_else(|| format!("the schedule never runs: {timing}"))
}

fn state(row: &ScheduleRow) -> Result<ScheduleState, TimingError> {
    Ok(ScheduleState {
        name: row.name.clone(),
        times: Times::new(&row.timing, row.added)?,
        since: row.since,
    })
}

#[cfg(test)]
mod tests {
    use config::schedule::Cron;
    use jiff::SignedDuration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cron(zone: Option<&str>) -> Timing {
        Timing::Cron(Cron {
            pattern: "0 3 * * *".to_owned(),
            zone: zone.map(str::to_owned),
        })
    }

    fn row(timing: Timing, since: i64) -> ScheduleRow {
        ScheduleRow {
            name: "nightly".parse().unwrap(),
            timing,
            added: at(0),
            since: at(since),
        }
    }

    #[test]
    fn a_run_names_the_schedule_as_it_was_read_and_its_first_missed_time() {
        let row = row(Timing::Every(SignedDuration::from_secs(60)), 0);
        let round = due(at(607), std::slice::from_ref(&row));
        let occasion = Occasion::Due {
            read: Box::new(row.clone()),
            due: at(60),
            until: at(607),
        };
        assert_eq!(
            occasion.key(&row.name),
            "schedule nightly 1970-01-01T00:01:00Z"
        );
        assert_eq!(round.runs, [(row.name.clone(), occasion)]);
        assert!(due(at(59), &[row]).runs.is_empty());
    }

    #[test]
    fn a_time_zone_that_is_unknown_stops_one_schedule_only() {
        let wrong = row(cron(Some("Europe/Nowhere")), 0);
        let right = row(cron(Some("UTC")), 0);
        let round = due(at(200_000), &[wrong, right]);
        assert_eq!((round.invalid.len(), round.runs.len()), (1, 1));
    }

    #[test]
    fn a_new_schedule_names_its_zone_and_has_a_time() {
        let refused = check(&cron(None), at(0)).unwrap_err();
        assert!(refused.contains("names its time zone"), "{refused}");
        assert!(check(&cron(Some("Nowhere")), at(0)).is_err());
        let past = check(&Timing::At(at(1)), at(2)).unwrap_err();
        assert!(past.contains("never runs"), "{past}");
        assert_eq!(check(&cron(Some("UTC")), at(0)), Ok(at(3 * 3600)));
    }
}
