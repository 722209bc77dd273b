//! Thinks: which schedules run now, and when to look again. Touches nothing.

use config::ScheduleName;
use jiff::{SignedDuration, Timestamp};

use super::timing::Times;

/// What lies further ahead than this was done by a clock that was wrong.
const SET_BACK_MAX: SignedDuration = SignedDuration::from_hours(24);

/// What must be known of a schedule.
#[derive(Debug, Clone)]
pub(super) struct MachineState {
    /// The schedule.
    pub(super) name: ScheduleName,
    /// Its times.
    pub(super) times: Times,
    /// All of its times until then are over.
    pub(super) since: Timestamp,
}

impl MachineState {
    /// The first of its times that is not over; it may have passed.
    ///
    /// A clock that is set back does not bring a time again, unless it was so wrong that
    /// the schedule would stand still for long.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let is_wrong = self.since.duration_since(now) > SET_BACK_MAX;
        self.times.after(if is_wrong { now } else { self.since })
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The schedules that run, each for the first of its times that are not over; it
    /// makes up for all that have passed.
    pub(super) due: Vec<(ScheduleName, Timestamp)>,
    /// When another one runs.
    pub(super) wake_at: Option<Timestamp>,
}

/// What is to be done now. When it is done, all times until `now` are over.
pub(super) fn plan(all: &[MachineState], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for seen in all {
        let mut next = seen.next(now);
        if let Some(due) = next.filter(|due| *due <= now) {
            plan.due.push((seen.name.clone(), due));
            next = seen.times.after(now);
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

    fn seen(timing: &Timing, added: i64, since: i64) -> MachineState {
        MachineState {
            name: "nightly".parse().unwrap(),
            times: Times::new(timing, at(added)).unwrap(),
            since: at(since),
        }
    }

    fn every(seconds: i64) -> Timing {
        Timing::Every(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn many_missed_times_are_one_run_and_the_beat_is_kept() {
        let seen = seen(&every(60), 0, 0);
        let plan = plan(std::slice::from_ref(&seen), at(600 + 7));
        assert_eq!(plan.due, [(seen.name, at(60))]);
        assert_eq!(plan.wake_at, Some(at(660)));
    }

    #[test]
    fn the_next_one_of_all_is_waited_for_and_what_is_over_is_not() {
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
    fn a_clock_that_is_set_back_repeats_nothing_unless_it_was_far_off() {
        let day = 24 * 60 * 60;
        let seen = seen(&every(60), 0, 10 * day);
        let hour_back = plan(std::slice::from_ref(&seen), at(10 * day - 3600));
        assert_eq!(
            (hour_back.due, hour_back.wake_at),
            (vec![], Some(at(10 * day + 60)))
        );
        let year_back = plan(&[seen], at(day));
        assert_eq!(
            (year_back.due, year_back.wake_at),
            (vec![], Some(at(day + 60)))
        );
    }

    /// Lives through moments; returns the times that ran.
    fn live(timing: &Timing, moments: impl Iterator<Item = i64>) -> Vec<(Timestamp, Timestamp)> {
        let mut seen = seen(timing, 0, 0);
        let mut ran = Vec::new();
        for now in moments.map(at) {
            for (_, due) in plan(&[seen.clone()], now).due {
                ran.push((due, now));
                seen.since = now;
            }
            let again = plan(&[seen.clone()], now);
            assert_eq!(again.due, [], "what was done is done");
            assert!(again.wake_at.is_none_or(|next| next > now.min(seen.since)));
        }
        ran
    }

    proptest! {
        #[test]
        fn no_time_runs_twice_and_none_is_lost_whatever_the_clock_does(
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
            let ran = live(&timing, moments.iter().copied());
            let dues: BTreeSet<_> = ran.iter().map(|(due, _)| *due).collect();
            prop_assert_eq!(dues.len(), ran.len(), "none twice: {:?}", ran);
            prop_assert!(ran.iter().all(|(due, now)| due <= now));
            // Whenever a time has passed since it last ran, it has run.
            let times = Times::new(&timing, at(0)).unwrap();
            let latest = moments.iter().copied().max().unwrap();
            let last = ran.iter().map(|(_, now)| *now).max().unwrap_or(at(0));
            prop_assert!(times.after(last).is_none_or(|next| next > at(latest)));
        }
    }
}
