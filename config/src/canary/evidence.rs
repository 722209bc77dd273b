//! The evidence on a candidate, and the verdict that it leads to. Pure.
//!
//! A build that fails on the candidate runs again on the current revision. Only if it succeeds
//! there, the failure is one of the candidate.

use std::fmt;

use super::{Terms, TrialResult, TrialVerdict};
use crate::builds::Build;
use crate::join_and;
use crate::names::BuildId;
use crate::task::Outcome;

/// The largest number of builds that a reason names.
const NAMED_MAX: usize = 3;

/// A build that has run on a candidate, as the verdict on the candidate needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialBuild {
    /// The build.
    pub id: BuildId,
    /// The name of its subject, for people.
    pub target: String,
    /// The result on the candidate; `None` while it runs there.
    pub result: Option<TrialResult>,
    /// The outcome of the build, once it is finished.
    pub outcome: Option<Outcome>,
}

impl TrialBuild {
    /// Returns the part of a record; `None` for a build that was not on trial.
    pub fn new(build: Build) -> Option<Self> {
        Some(Self {
            id: build.id,
            target: build.target.to_string(),
            result: build.trial?.result,
            outcome: build.outcome,
        })
    }

    fn is_running(&self) -> bool {
        self.result.is_none() && self.outcome.is_none()
    }

    /// Returns true if its failure on the candidate has not been explained yet.
    fn is_repeating(&self) -> bool {
        let has_failed = !matches!(self.result, None | Some(TrialResult::Succeeded));
        has_failed && self.outcome.is_none()
    }

    fn succeeded_on_current(&self) -> bool {
        self.outcome.is_some_and(Outcome::is_good)
    }
}

/// The evidence on a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence<'b> {
    terms: Terms,
    /// The number of builds that succeeded on the candidate.
    pub succeeded: usize,
    /// The number of builds that run on it.
    pub running: usize,
    /// The number of builds that failed on it, and have not ended on the current revision.
    pub repeating: usize,
    /// The builds that failed on the candidate only, with the reasons.
    pub strikes: Vec<(&'b TrialBuild, &'b str)>,
    /// The builds for which the host failed on the candidate only, with the reasons.
    lost_guests: Vec<(&'b TrialBuild, &'b str)>,
}

impl<'b> Evidence<'b> {
    /// Returns the evidence of the builds of a trial.
    pub fn new(terms: Terms, builds: &'b [TrialBuild]) -> Self {
        let mut evidence = Self {
            terms,
            succeeded: 0,
            running: 0,
            repeating: 0,
            strikes: Vec::new(),
            lost_guests: Vec::new(),
        };
        for build in builds {
            evidence.running += usize::from(build.is_running());
            evidence.repeating += usize::from(build.is_repeating());
            match &build.result {
                Some(TrialResult::Succeeded) => evidence.succeeded += 1,
                Some(TrialResult::Failed { message, .. }) if build.succeeded_on_current() => {
                    evidence.strikes.push((build, message));
                }
                Some(TrialResult::HostFailed { message }) if build.succeeded_on_current() => {
                    evidence.lost_guests.push((build, message));
                }
                Some(TrialResult::Failed { .. } | TrialResult::HostFailed { .. }) | None => {}
            }
        }
        evidence
    }

    /// Returns the number of builds that must succeed. Each strike must be outweighed.
    pub fn needed(&self) -> usize {
        self.terms.builds() * (1 + self.strikes.len())
    }

    /// Returns the number of builds that may start on the candidate now.
    pub fn vacancies(&self) -> usize {
        self.needed().saturating_sub(self.succeeded + self.running)
    }

    /// Returns the verdict and its reason, which names the current revision; `None` while more builds must
    /// run.
    pub fn verdict(&self, current: impl fmt::Display) -> Option<(TrialVerdict, String)> {
        let strikes = self.strikes.len();
        if strikes >= self.terms.strikes_max() {
            let builds = listed(&self.strikes);
            let reason = format!("{builds} failed on it and succeeded on revision {current}");
            return Some((TrialVerdict::RolledBack, reason));
        }
        if self.lost_guests.len() >= self.terms.lost_guests_max() {
            let builds = listed(&self.lost_guests);
            let reason = format!(
                "the guests of {builds} did not end well on it, and those on revision {current} did"
            );
            return Some((TrialVerdict::RolledBack, reason));
        }
        let (succeeded, needed) = (self.succeeded, self.needed());
        (succeeded >= needed && self.repeating == 0).then(|| {
            let strikes = match strikes {
                0 => String::new(),
                number => format!("; {number} failed on it only"),
            };
            let builds = if succeeded == 1 { "build" } else { "builds" };
            let reason = format!("{succeeded} {builds} succeeded on it{strikes}");
            (TrialVerdict::Promoted, reason)
        })
    }
}

/// Names builds and the reasons of their failures.
fn listed(builds: &[(&TrialBuild, &str)]) -> String {
    let named = builds.iter().take(NAMED_MAX).map(|(build, message)| {
        let message: String = message.chars().take(200).collect();
        format!("build {} of {} ({message})", build.id, build.target)
    });
    let named: Vec<_> = named.collect();
    match builds.len().saturating_sub(NAMED_MAX) {
        0 => join_and(&named),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(text: &str) -> Terms {
        text.parse().unwrap()
    }

    /// The fates of builds on a candidate.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fate {
        Running,
        Succeeded,
        /// It failed on the candidate, and its repetition has this outcome.
        Failed(Option<Outcome>),
        /// The host failed on the candidate, and the repetition has this outcome.
        Lost(Option<Outcome>),
        Canceled,
    }

    fn builds(fates: &[Fate]) -> Vec<TrialBuild> {
        let failed = || TrialResult::Failed {
            outcome: Outcome::Error,
            message: "no make".to_owned(),
        };
        let lost = || TrialResult::HostFailed {
            message: "no start".to_owned(),
        };
        let build = |(id, fate): (u64, &Fate)| {
            let (result, outcome) = match fate {
                Fate::Running => (None, None),
                Fate::Succeeded => (Some(TrialResult::Succeeded), Some(Outcome::Success)),
                Fate::Failed(outcome) => (Some(failed()), *outcome),
                Fate::Lost(outcome) => (Some(lost()), *outcome),
                Fate::Canceled => (None, Some(Outcome::Abort)),
            };
            TrialBuild {
                id: BuildId(id),
                target: "hello".to_owned(),
                result,
                outcome,
            }
        };
        (1..).zip(fates).map(build).collect()
    }

    fn verdict(text: &str, fates: &[Fate]) -> Option<(TrialVerdict, String)> {
        let builds = builds(fates);
        Evidence::new(terms(text), &builds).verdict(1)
    }

    const STRIKE: Fate = Fate::Failed(Some(Outcome::Success));
    const OWN_FAULT: Fate = Fate::Failed(Some(Outcome::Error));

    #[test]
    fn enough_successes_promote_and_strikes_roll_back() {
        use Fate::{Canceled, Failed, Lost, Running, Succeeded};
        use TrialVerdict::{Promoted, RolledBack};
        for (text, fates, expected) in [
            ("2 of 2", vec![], None),
            ("2 of 2", vec![Succeeded, Running], None),
            ("2 of 2", vec![Succeeded, Succeeded], Some(Promoted)),
            // A package that fails on both revisions says nothing.
            ("2 of 2", vec![OWN_FAULT; 9], None),
            (
                "2 of 2",
                vec![OWN_FAULT, Succeeded, Succeeded],
                Some(Promoted),
            ),
            // The failure must be explained first.
            ("2 of 2", vec![Failed(None), Succeeded, Succeeded], None),
            // One strike must be outweighed, two end the trial.
            ("2 of 2", vec![STRIKE, Succeeded, Succeeded], None),
            (
                "2 of 2",
                vec![STRIKE, Succeeded, Succeeded, Succeeded, Succeeded],
                Some(Promoted),
            ),
            (
                "2 of 2",
                vec![STRIKE, Succeeded, Succeeded, STRIKE],
                Some(RolledBack),
            ),
            ("1 of 4", vec![STRIKE], Some(RolledBack)),
            // Neither the host nor a person is evidence.
            ("2 of 2", vec![Lost(Some(Outcome::Success)); 2], None),
            ("2 of 2", vec![Lost(Some(Outcome::Abnormal)); 9], None),
            ("2 of 2", vec![Canceled; 9], None),
            // But a trial on which no guest ends well has an end.
            (
                "2 of 2",
                vec![Lost(Some(Outcome::Success)); 3],
                Some(RolledBack),
            ),
            ("9 of 9", vec![Lost(Some(Outcome::Success)); 8], None),
        ] {
            let found = verdict(text, &fates).map(|it| it.0);
            assert_eq!(found, expected, "{text}: {fates:?}");
        }
    }

    #[test]
    fn the_reason_names_the_builds_and_their_errors() {
        let (_, reason) = verdict("2 of 2", &[STRIKE, STRIKE]).unwrap();
        assert_eq!(
            reason,
            "build 1 of hello (no make) and build 2 of hello (no make) failed on it and succeeded on revision 1"
        );
        let (_, reason) = verdict("1 of 2", &[Fate::Succeeded]).unwrap();
        assert_eq!(reason, "1 build succeeded on it");
    }

    fn fate() -> impl Strategy<Value = Fate> {
        let outcome = prop::option::of(prop::sample::select(vec![
            Outcome::Success,
            Outcome::Error,
            Outcome::Abnormal,
        ]));
        prop_oneof![
            Just(Fate::Running),
            Just(Fate::Succeeded),
            Just(Fate::Canceled),
            outcome.clone().prop_map(Fate::Failed),
            outcome.prop_map(Fate::Lost),
        ]
    }

    proptest! {
        #[test]
        fn no_more_builds_are_at_risk_than_the_verdict_needs(
            fates in prop::collection::vec(fate(), 0..30),
            number in 1..5_usize,
        ) {
            let builds = builds(&fates);
            let evidence = Evidence::new(terms(&format!("{number} of 9")), &builds);
            let undecided = evidence.verdict(1).is_none();
            prop_assert!(evidence.vacancies() <= evidence.needed());
            // An undecided trial continues: something runs, is repeated or may start.
            let goes_on = evidence.running + evidence.repeating + evidence.vacancies() > 0;
            prop_assert!(!undecided || goes_on);
        }

        #[test]
        fn only_a_difference_between_the_revisions_rolls_back(
            fates in prop::collection::vec(fate(), 0..30),
        ) {
            let differs = |it: &Fate| {
                matches!(it, Fate::Failed(Some(Outcome::Success)) | Fate::Lost(Some(Outcome::Success)))
            };
            let found = verdict("2 of 3", &fates).map(|it| it.0);
            if !fates.iter().any(differs) {
                prop_assert_ne!(found, Some(TrialVerdict::RolledBack));
            }
            if fates.iter().filter(|it| **it == Fate::Succeeded).count() < 2 {
                prop_assert_ne!(found, Some(TrialVerdict::Promoted));
            }
        }
    }
}
