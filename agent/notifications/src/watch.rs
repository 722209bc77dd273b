//! The decision when a problem has begun and when it has ended; pure. One that comes and goes is told once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use config::doctor::{Finding, FindingKey, Id, PROBLEMS};
use config::notify::Problem;
use jiff::Timestamp;

use crate::housekeeping::doctor::Problems;

/// The pace at which problems are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The time between two looks.
    pub look: Duration,
    /// The time for which a problem must be there before it is told. What stops all builds, or has lasted
    /// for an hour by the doctor's own rule, is told at once.
    pub begin: Duration,
    /// The time for which it must be gone before its end is told.
    pub end: Duration,
}

/// The problems that were seen.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: BTreeMap<(Id, String), Seen>,
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
    /// Returns a watch that knows the problems of which an earlier agent has told.
    pub(super) fn new(told: Vec<Problem>, now: Instant) -> Self {
        let seen = told.into_iter().map(|problem| {
            let key = (problem.id, problem.subject.clone());
            let seen = Seen {
                first: now,
                last: now,
                has_begun: true,
                problem,
            };
            (key, seen)
        });
        Self {
            seen: seen.collect(),
        }
    }

    /// Takes a look into account, and returns the problems that have begun and not ended.
    pub(super) fn look(
        &mut self,
        found: &Problems,
        pace: Pace,
        now: Instant,
        time: Timestamp,
    ) -> Vec<Problem> {
        for problem in gather(&found.findings, time) {
            let key = (problem.id, problem.subject.clone());
            let seen = self.seen.entry(key).or_insert_with(|| Seen {
                first: now,
                last: now,
                has_begun: false,
                problem,
            });
            seen.last = now;
            seen.has_begun |= now - seen.first >= delay(seen.problem.id, pace);
        }
        for key in &found.undecided {
            if let Some(seen) = self.seen.get_mut(&subject(key)) {
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

/// Returns the time for which a problem must be there before it is told.
fn delay(id: Id, pace: Pace) -> Duration {
    match id {
        Id::LowSpace | Id::ControllerUnreachable => Duration::ZERO,
        _ => pace.begin,
    }
}

/// Returns the problem that a finding belongs to: all leftovers of a kind are one.
fn subject(key: &FindingKey) -> (Id, String) {
    let subject = match key.id {
        Id::LeftoverGuest | Id::LeftoverDirectory | Id::LeftoverNetwork | Id::LeftoverGroup => {
            String::new()
        }
        _ => key.subject.to_string(),
    };
    (key.id, subject)
}

/// Returns the problems among findings.
fn gather(findings: &[Finding], time: Timestamp) -> Vec<Problem> {
    let mut problems = BTreeMap::new();
    let told = findings.iter().filter(|it| PROBLEMS.contains(&it.id));
    for finding in told {
        let (count, _) = problems
            .entry(subject(&finding.key()))
            .or_insert((0, finding));
        *count += 1;
    }
    let problem = |((id, subject), (count, first)): ((Id, String), (usize, &Finding))| {
        let name = first.subject.to_string();
        let proof = match (subject.is_empty(), count) {
            (false, _) => first.proof.clone(),
            (true, 1) => format!("{name}: {}", first.proof),
            (true, _) => format!("{name}: {}, and {} more", first.proof, count - 1),
        };
        Problem {
            id,
            subject,
            proof,
            advice: first.advice.clone(),
            since: time,
        }
    };
    problems.into_iter().map(problem).collect()
}

#[cfg(test)]
mod tests {
    use config::doctor::Subject;
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        look: Duration::from_secs(30),
        begin: Duration::from_mins(10),
        end: Duration::from_mins(5),
    };

    fn finding(id: Id, subject: Subject) -> Finding {
        Finding::new(id, subject, "proof", "advice")
    }

    fn pressure() -> Finding {
        finding(Id::HostPressure, Subject::Path("memory".into()))
    }

    fn full() -> Finding {
        finding(Id::LowSpace, Subject::Path("/volume".into()))
    }

    fn found(findings: &[Finding]) -> Problems {
        Problems {
            findings: findings.to_vec(),
            undecided: Vec::new(),
        }
    }

    /// Returns the number of open problems after looks at these seconds.
    fn looks(watch: &mut Watch, start: Instant, all: &[(u64, Problems)]) -> Vec<usize> {
        let look = |(second, found): &(u64, Problems)| {
            let now = start + Duration::from_secs(*second);
            watch.look(found, PACE, now, Timestamp::UNIX_EPOCH).len()
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
        let away = finding(
            Id::ControllerUnreachable,
            Subject::Controller("ci".parse().unwrap()),
        );
        let told = gather(std::slice::from_ref(&away), Timestamp::UNIX_EPOCH);
        let mut watch = Watch::new(told, start);
        let unasked = || Problems {
            findings: Vec::new(),
            undecided: vec![away.key()],
        };
        let all = [(1000, unasked()), (1001, found(&[])), (1300, found(&[]))];
        assert_eq!(looks(&mut watch, start, &all), [1, 1, 0]);
    }

    #[test]
    fn leftovers_of_a_kind_are_one_problem() {
        let left = |tag: &str| finding(Id::LeftoverGuest, Subject::Guest(tag.to_owned()));
        let other = finding(Id::OldImage, Subject::Guest("1".to_owned()));
        let problems = gather(&[left("7"), left("8"), other], Timestamp::UNIX_EPOCH);
        let [problem] = &problems[..] else {
            panic!("{problems:?}");
        };
        assert_eq!(problem.proof, "guest 7: proof, and 1 more");
        assert_eq!(problem.subject, "");
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
