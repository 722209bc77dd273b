//! The trials of revisions, and the builds that ran on candidates.

use std::collections::BTreeMap;

use config::canary::{self, TrialBuild, TrialResult, TrialVerdict};
use config::task::Outcome;
use config::{BuildId, MachineName};
use farm_core::operation::Answer;
use farm_core::trials::{Trial, TrialNumber, TrialState, failure};
use farm_core::{Epoch, HostId, Lease, Published};

use super::{BuildRecord, State, Tables};

/// The last trial of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialRecord {
    /// The trial.
    pub trial: Trial,
    /// The begin.
    pub began_at: u64,
    /// The end.
    pub ended_at: Option<u64>,
}

/// The run of a build on a candidate. A build has one at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunRecord {
    /// The trial.
    pub trial: TrialNumber,
    /// The claim.
    pub epoch: Epoch,
    /// The host.
    pub host: HostId,
    /// The outcome, if the build runs again because of it; [`Outcome::Abnormal`] if the host failed.
    pub failure: Option<Outcome>,
}

impl Tables {
    /// Returns the last trial of each machine.
    pub(super) fn last_trials(&self) -> BTreeMap<MachineName, Trial> {
        let trials = self.trials.iter();
        trials
            .map(|(machine, it)| (machine.clone(), it.trial.clone()))
            .collect()
    }

    pub(super) fn begin_trial(
        &mut self,
        now: u64,
        machine: MachineName,
        candidate: Published,
        terms: canary::Terms,
    ) -> Answer {
        let Some(published) = self.published.get(&machine) else {
            return Answer::NotFound;
        };
        let last = self.trials.get(&machine).map(|it| &it.trial);
        let is_same = |it: &&Trial| it.is_open() && it.candidate == candidate && it.terms == terms;
        if let Some(same) = last.filter(is_same) {
            return Answer::TrialBegun(same.number);
        }
        if published.revision >= candidate.revision {
            return Answer::Published(published.revision);
        }
        self.trials_begun += 1;
        let number = TrialNumber(self.trials_begun);
        let trial = Trial {
            number,
            candidate,
            terms,
            end: None,
        };
        let record = TrialRecord {
            trial,
            began_at: now,
            ended_at: None,
        };
        self.trials.insert(machine, record);
        Answer::TrialBegun(number)
    }

    pub(super) fn end_trial(
        &mut self,
        now: u64,
        machine: MachineName,
        number: TrialNumber,
        verdict: TrialVerdict,
        reason: String,
    ) -> Answer {
        let record = self.trials.get_mut(&machine);
        let Some(record) = record.filter(|it| it.trial.number == number) else {
            return Answer::Stale;
        };
        if let Some((known, _)) = &record.trial.end {
            return if *known == verdict {
                Answer::Recorded
            } else {
                Answer::Stale
            };
        }
        if verdict == TrialVerdict::Promoted {
            let candidate = &record.trial.candidate;
            let published = self.published.get(&machine);
            let is_newest =
                published.is_some_and(|it| it == candidate || it.revision < candidate.revision);
            if !is_newest {
                return Answer::Stale;
            }
            self.published.insert(machine, candidate.clone());
        }
        record.trial.end = Some((verdict, reason));
        record.ended_at = Some(now);
        Answer::Done
    }

    /// Returns true if a build may be claimed for the candidate of a trial.
    pub(super) fn may_try(&self, build: &BuildRecord, number: TrialNumber, on: &Published) -> bool {
        let machine = &build.submission.requirements.machine;
        let trial = self.trials.get(machine).map(|it| &it.trial);
        let is_open = |it: &Trial| it.is_open() && it.number == number && it.candidate == *on;
        let published = self.published.get(machine);
        let is_newer = published.is_some_and(|it| it.revision < on.revision);
        is_newer && build.may_be_on_trial() && trial.is_some_and(is_open)
    }

    /// Returns a build to the queue that has failed on trial.
    pub(super) fn fail_on_trial(&mut self, lease: Lease, outcome: Outcome) {
        if let Some(run) = self.runs.get_mut(&lease.build) {
            run.failure = Some(outcome);
        }
        if let Some(build) = self.builds.get_mut(&lease.build) {
            build.state = State::Queued(0);
            (build.host, build.trial) = (None, None);
        }
    }

    /// Returns true if a host has reported a failure on trial under a lease.
    pub(super) fn has_failed_on_trial(&self, host: HostId, lease: Lease) -> bool {
        let run = self.runs.get(&lease.build);
        run.is_some_and(|it| it.epoch == lease.epoch && it.host == host && it.failure.is_some())
    }

    pub(super) fn open_trials(&self) -> Vec<TrialState> {
        let open = self.trials.iter().filter(|(_, it)| it.trial.is_open());
        let states = open.map(|(machine, record)| TrialState {
            machine: machine.clone(),
            trial: record.trial.clone(),
            began_ms: record.began_at,
            ended_ms: record.ended_at,
            published: self.published.get(machine).cloned().unwrap_or_default(),
            builds: self.trial_builds(record.trial.number),
        });
        let mut states: Vec<_> = states.collect();
        states.sort_by_key(|it| it.trial.number);
        states
    }

    /// Returns the builds that ran on the candidate of a trial.
    fn trial_builds(&self, number: TrialNumber) -> Vec<TrialBuild> {
        let runs = self.runs.iter().filter(|(_, it)| it.trial == number);
        runs.filter_map(|(id, run)| trial_build(*id, run, self.builds.get(id)?))
            .collect()
    }
}

/// Returns the part of a build in a trial; `None` if its host was silent, which says nothing.
fn trial_build(id: BuildId, run: &RunRecord, build: &BuildRecord) -> Option<TrialBuild> {
    let outcome = match build.state {
        State::Finished(outcome, _) => Some(outcome),
        State::Queued(_) | State::Leased(_) => None,
    };
    let is_last = build.epoch == run.epoch;
    let result = match run.failure {
        Some(outcome) => Some(failure(outcome)),
        None if !is_last || matches!(build.state, State::Queued(_)) => return None,
        None => outcome
            .filter(|it| it.is_good())
            .map(|_| TrialResult::Succeeded),
    };
    let subject = &build.submission.subject;
    let machine = &build.submission.requirements.machine;
    let target = subject.target.as_ref().map(ToString::to_string);
    Some(TrialBuild {
        id,
        target: target.unwrap_or_else(|| machine.to_string()),
        result,
        outcome,
    })
}

impl BuildRecord {
    /// Returns true if the build was neither lost nor on trial.
    pub(super) fn may_be_on_trial(&self) -> bool {
        !self.tried && self.losses == 0
    }
}
