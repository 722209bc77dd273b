//! The plan of schedules: those that run now, and the next wake-up. Pure.

use config::ScheduleName;
use jiff::{SignedDuration, Timestamp};

use crate::times::Times;

/// The maximum by which a last run may lie ahead of the clock. Beyond it, the clock was wrong
/// at that run.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(24);
/// The time before the clock from which times count again if it was wrong. Rounds are more frequent.
const RECENT: SignedDuration = SignedDuration::from_mins(1);

/// The facts about a schedule that the plan needs.
#[derive(Debug, Clone)]
pub struct ScheduleState {
    /// Its name.
    pub name: ScheduleName,
    /// Its times.
    pub times: Times,
    /// Its high-water mark: all times up to here are done.
    pub since: Timestamp,
}

impl ScheduleState {
    /// Returns its first time that is not done; it may have passed.
    ///
    /// A clock that is set back repeats no time, unless the schedule would not run for longer
    /// than a day.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let is_wrong = self.since.duration_since(now) > SET_BACK_MAX;
        self.times
            .after(if is_wrong { now - RECENT } else { self.since })
    }
}

/// The schedules to run, and the next wake-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The schedules that are due, each with its first missed time. One run makes up for all
    /// missed times.
    pub due: Vec<(ScheduleName, Timestamp)>,
    /// The time of the next run.
    pub wake_at: Option<Timestamp>,
}

/// Returns the plan. After its runs, all times up to `now` are done.
pub fn plan(all: &[ScheduleState], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for schedule in all {
        let mut next = schedule.next(now);
        if let Some(due) = next.filter(|due| *due <= now) {
            plan.due.push((schedule.name.clone(), due));
            next = schedule.times.after(now);
        }
        plan.wake_at = plan.wake_at.into_iter().chain(next).min();
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use config::schedule::{Cron, Timing};
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(timing: &Timing, added: i64, since: i64) -> ScheduleState {
        ScheduleState {
            name: "nightly".parse().unwrap(),
            times: Times::new(timing, at(added)).unwrap(),
            since: at(since),
        }
    }

    fn every(seconds: i64) -> Timing {
        Timing::Every(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn missed_times_collapse_into_one_run_and_the_phase_is_kept() {
        let seen = seen(&every(60), 0, 0);
        let plan = plan(std::slice::from_ref(&seen), at(600 + 7));
        assert_eq!(plan.due, [(seen.name, at(60))]);
        assert_eq!(plan.wake_at, Some(at(660)));
    }

    #[test]
    fn the_earliest_next_time_wakes_the_plan() {
        let once = |second| Timing::At(at(second));
        let all = [
            seen(&once(50), 0, 0),
            seen(&once(30), 0, 30),
            seen(&once(40), 0, 0),
        ];
        assert_eq!(plan(&all, at(35)).wake_at, Some(at(40)));
        assert_eq!(plan(&all, at(35)).due, []);
        assert_eq!(plan(&all[1..2], at(35)), Plan::default());
        assert_eq!(plan(&[], at(0)), Plan::default());
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing_unless_it_was_wrong_by_days() {
        let day = 24 * 60 * 60;
        let seen = seen(&every(60), 0, 10 * day);
        let hour_back = plan(std::slice::from_ref(&seen), at(10 * day - 3600));
        assert_eq!(
            (hour_back.due, hour_back.wake_at),
            (vec![], Some(at(10 * day + 60)))
        );
        let year_back = plan(std::slice::from_ref(&seen), at(day + 7));
        assert_eq!(
            (year_back.due, year_back.wake_at),
            (vec![(seen.name.clone(), at(day))], Some(at(day + 60)))
        );
        // A schedule that runs seldom stands still no longer than until its next time.
        let seldom = ScheduleState {
            times: Times::new(&every(7 * 60), at(0)).unwrap(),
            ..seen
        };
        let plan_at = |second| plan(std::slice::from_ref(&seldom), at(second));
        assert_eq!(plan_at(419 + 420).wake_at, Some(at(840)));
        assert_eq!(plan_at(841).due, [(seldom.name.clone(), at(840))]);
    }

    /// Runs the plan at each moment. Returns the times that ran.
    fn run_at(timing: &Timing, moments: impl Iterator<Item = i64>) -> Vec<(Timestamp, Timestamp)> {
        let mut seen = seen(timing, 0, 0);
        let mut ran = Vec::new();
        for now in moments.map(at) {
            for (_, due) in plan(&[seen.clone()], now).due {
                ran.push((due, now));
                seen.since = now;
            }
            let again = plan(&[seen.clone()], now);
            assert_eq!(again.due, [], "a second plan has nothing to do");
            assert!(again.wake_at.is_none_or(|next| next > now.min(seen.since)));
        }
        ran
    }

    proptest! {
        #[test]
        fn no_time_runs_twice_or_is_lost_when_the_clock_is_changed(
            steps in prop::collection::vec(-40_000i64..90_000, 1..60),
            timing in prop::sample::select(vec![
                every(1), every(3600), every(100_000), Timing::At(at(1_000_000_000)),
                Timing::Cron(Cron { pattern: "30 2 * * *".into(), zone: Some("Europe/Berlin".into()) }),
                Timing::Cron(Cron { pattern: "*/5 * * * *".into(), zone: Some("UTC".into()) }),
            ]),
        ) {
            let (mut now, mut latest) = (100_000, 100_000);
            let moments = steps.into_iter().map(move |step| {
                now = (now + step).max(latest - 86_400);
                latest = latest.max(now);
                now
            });
            let moments: Vec<_> = moments.collect();
            let ran = run_at(&timing, moments.iter().copied());
            let dues: BTreeSet<_> = ran.iter().map(|(due, _)| *due).collect();
            prop_assert_eq!(dues.len(), ran.len(), "no time runs twice: {:?}", ran);
            prop_assert!(ran.iter().all(|(due, now)| due <= now));
            // Whenever a time has passed since it last ran, it has run.
            let times = Times::new(&timing, at(0)).unwrap();
            let latest = moments.iter().copied().max().unwrap();
            let last = ran.iter().map(|(_, now)| *now).max().unwrap_or(at(0));
            prop_assert!(times.after(last).is_none_or(|next| next > at(latest)));
        }
    }
}
