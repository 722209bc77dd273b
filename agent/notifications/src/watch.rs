//! The decision when a problem has begun and when it has ended; pure. One that comes and goes is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use config::notify::{Problem, ProblemId};

/// The pace at which problems are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The time between two looks.
    pub look: Duration,
    /// The time for which a problem must be there before it is told, unless it is told at once.
    pub begin: Duration,
    /// The time for which it must be gone before its end is told.
    pub end: Duration,
}

impl Pace {
    /// The usual pace.
    pub const USUAL: Self = Self {
        look: Duration::from_secs(30),
        begin: Duration::from_mins(10),
        end: Duration::from_mins(5),
    };
}

/// The kind and the subject of a problem.
pub type Key = (ProblemId, String);

/// The problems of one look.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Those that are there.
    pub problems: Vec<Problem>,
    /// Those of which nobody knows yet if they are there.
    pub undecided: Vec<Key>,
}

/// The problems that were seen.
#[derive(Debug, Default)]
pub struct Watch {
    seen: BTreeMap<Key, Seen>,
}

/// A problem that was seen.
#[derive(Debug)]
struct Seen {
    first: Instant,
    last: Instant,
    has_begun: bool,
    problem: Problem,
}

impl Watch {
    /// Takes over what recipients were told of, which is open until it is certain that it has ended. Nothing
    /// else is open unless the next look finds it.
    pub fn adopt(&mut self, told: Vec<Problem>, now: Instant) {
        let keys: BTreeSet<_> = told.iter().map(key).collect();
        for (key, seen) in &mut self.seen {
            seen.has_begun = keys.contains(key);
        }
        for problem in told {
            let seen = self.seen.entry(key(&problem)).or_insert(Seen {
                first: now,
                last: now,
                has_begun: true,
                problem,
            });
            seen.has_begun = true;
        }
    }

    /// Takes a look into account, and returns the problems that have begun and not ended.
    pub fn look(&mut self, found: Found, pace: Pace, now: Instant) -> Vec<Problem> {
        for problem in found.problems {
            let seen = self.seen.entry(key(&problem)).or_insert_with(|| Seen {
                first: now,
                last: now,
                has_begun: false,
                problem,
            });
            seen.last = now;
            let is_begun = seen.problem.id.is_told_at_once() || now - seen.first >= pace.begin;
            seen.has_begun |= is_begun;
        }
        for key in &found.undecided {
            if let Some(seen) = self.seen.get_mut(key) {
                seen.last = now;
            }
        }
        self.seen.retain(|_, seen| {
            let absent = now - seen.last;
            absent.is_zero() || seen.has_begun && absent < pace.end
        });
        let begun = self.seen.values().filter(|it| it.has_begun);
        begun.map(|it| it.problem.clone()).collect()
    }
}

fn key(problem: &Problem) -> Key {
    (problem.id, problem.subject.clone())
}

#[cfg(test)]
mod tests {
    use config::doctor::Id;
    use config::notify::FarmProblem;
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace::USUAL;

    fn problem(id: ProblemId, subject: &str) -> Problem {
        Problem {
            id,
            subject: subject.to_owned(),
            proof: "proof".to_owned(),
            advice: "advice".to_owned(),
            since: Timestamp::UNIX_EPOCH,
        }
    }

    fn pressure() -> Problem {
        problem(ProblemId::Host(Id::HostPressure), "memory")
    }

    fn full() -> Problem {
        problem(ProblemId::Host(Id::LowSpace), "/volume")
    }

    fn found(problems: &[Problem]) -> Found {
        Found {
            problems: problems.to_vec(),
            undecided: Vec::new(),
        }
    }

    /// Returns the number of open problems after looks at these seconds.
    fn looks(watch: &mut Watch, start: Instant, all: &[(u64, Found)]) -> Vec<usize> {
        let look = |(second, found): &(u64, Found)| {
            let now = start + Duration::from_secs(*second);
            watch.look(found.clone(), PACE, now).len()
        };
        all.iter().map(look).collect()
    }

    #[test]
    fn a_full_disk_is_told_at_once_and_its_end_only_when_it_is_certain() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let all = [
            (0, found(&[full()])),
            (30, found(&[])),
            (60, found(&[full()])),
            (330, found(&[])),
            (359, found(&[])),
            (360, found(&[])),
        ];
        assert_eq!(looks(&mut watch, start, &all), [1, 1, 1, 1, 1, 0]);
    }

    #[test]
    fn pressure_is_told_when_it_has_lasted() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let all = [
            (0, found(&[pressure()])),
            (590, found(&[pressure()])),
            (599, found(&[])),
            (601, found(&[pressure()])),
            (1200, found(&[pressure()])),
            (1201, found(&[pressure()])),
        ];
        assert_eq!(looks(&mut watch, start, &all), [0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn what_an_earlier_agent_told_of_ends_only_when_it_is_decided() {
        let start = Instant::now();
        let away = problem(ProblemId::Host(Id::ControllerUnreachable), "controller ci");
        let mut watch = Watch::default();
        watch.adopt(vec![away.clone()], start);
        let unasked = || Found {
            problems: Vec::new(),
            undecided: vec![key(&away)],
        };
        let all = [(1000, unasked()), (1001, found(&[])), (1300, found(&[]))];
        assert_eq!(looks(&mut watch, start, &all), [1, 1, 0]);
    }

    #[test]
    fn what_another_coordinator_has_ended_does_not_begin_again() {
        let start = Instant::now();
        let silent = problem(ProblemId::Farm(FarmProblem::HostSilent), "build1");
        let mut watch = Watch::default();
        watch.adopt(vec![silent.clone()], start);
        let there = [(0, found(std::slice::from_ref(&silent)))];
        assert_eq!(looks(&mut watch, start, &there), [1]);
        watch.adopt(Vec::new(), start);
        assert_eq!(looks(&mut watch, start, &[(30, found(&[]))]), [0]);
        watch.adopt(vec![silent.clone()], start);
        assert_eq!(
            looks(&mut watch, start, &[(60, found(&[]))]),
            [1],
            "told by another one"
        );
    }

    proptest! {
        /// However a problem comes and goes, there are at least `end` between an end and the last sight.
        #[test]
        fn a_problem_that_comes_and_goes_is_no_flood(sights in prop::collection::vec(any::<bool>(), 0..200)) {
            let (mut watch, start) = (Watch::default(), Instant::now());
            let (mut was_open, mut last, mut changes) = (false, 0, 0u64);
            for (second, is_there) in (0u64..).step_by(30).zip(&sights) {
                let found = if *is_there { found(&[full()]) } else { found(&[]) };
                last = if *is_there { second } else { last };
                let is_open = looks(&mut watch, start, &[(second, found)])[0] == 1;
                if was_open && !is_open {
                    prop_assert!(second - last >= PACE.end.as_secs());
                }
                changes += u64::from(was_open != is_open);
                was_open = is_open;
            }
            prop_assert!(changes <= 2 + sights.len() as u64 * 30 / PACE.end.as_secs() * 2);
        }
    }
}
