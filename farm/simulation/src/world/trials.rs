//! Trials of revisions: hosts that try candidates, candidates that are bad, and the verdicts of coordinators.

use std::collections::{BTreeMap, BTreeSet};

use config::MachineName;
use config::canary::{TrialResult, TrialVerdict};
use config::task::Outcome;
use farm_core::host::Input;
use farm_core::messages::{Grant, Request};
use farm_core::operation::{Answer, Operation};
use farm_core::trials::{HostTrial, Trial, TrialNumber, TrialOrder, TrialState};
use farm_core::{Lease, OfferedTrial, Published, Revision};

use super::contents::content;
use super::host_disk::Tried;
use super::{Caller, Event, Host, World};
use crate::Bug;
use crate::tables::{BuildRecord, State, Tables};

/// The reason of a verdict that a person gives.
const PERSON: &str = "a person decided so";

/// Facts about trials that no actor knows.
#[derive(Debug, Default)]
pub(crate) struct TrialGhosts {
    /// The candidates of all trials.
    candidates: BTreeSet<(MachineName, Revision)>,
    /// The revisions that were published.
    published: BTreeSet<(MachineName, Revision)>,
    /// The leases on candidates.
    leases: BTreeMap<Lease, TrialNumber>,
    /// The guests on candidates that have ended, with their outcomes.
    ends: BTreeMap<Lease, Outcome>,
    /// The builds whose guests were started on candidates.
    started: BTreeSet<config::BuildId>,
    /// True if the bootstrap of a candidate has failed on a host.
    has_failed_bootstrap: bool,
}

/// Returns true for a revision on which all guests fail.
fn is_bad(revision: Revision) -> bool {
    revision.0.is_multiple_of(3)
}

/// Returns true for a build that fails on all revisions.
fn is_broken(lease: Lease) -> bool {
    lease.build.0 % 5 == 2
}

impl Host {
    /// Returns the open trial of a machine whose revision is newer than the current one.
    fn candidate(&self, machine: &MachineName) -> Option<&Tried> {
        let current = self.revisions.get(machine).copied().unwrap_or_default();
        let tried = self.trials.get(machine);
        tried.filter(|it| it.is_open && it.candidate.revision > current)
    }

    /// Returns the candidate of a machine, as the host offers it.
    pub(super) fn offered_trial(
        &self,
        machine: &MachineName,
        world: &World,
    ) -> Option<OfferedTrial> {
        let tried = self.candidate(machine)?;
        let toolchain = world.client.toolchain().clone();
        let mut offered = OfferedTrial {
            revision: tried.candidate.revision,
            content: tried.candidate.content.clone(),
            ..OfferedTrial::default()
        };
        match tried.ready_at {
            Some(at) if at <= world.now => drop(offered.toolchains.insert(toolchain)),
            Some(_) => {}
            None => drop(offered.failures.insert(toolchain, "no make".to_owned())),
        }
        Some(offered)
    }

    /// Returns the last trials that the farm has asked for.
    pub(super) fn trials_of_farm(&self) -> BTreeMap<MachineName, HostTrial> {
        let of_farm = self.trials.iter().filter(|(_, it)| it.number.0 > 0);
        let trial = |it: &Tried| HostTrial {
            number: it.number,
            is_open: it.is_open,
        };
        of_farm
            .map(|(machine, it)| (machine.clone(), trial(it)))
            .collect()
    }

    /// Returns true if a guest could start on a revision that is on trial.
    fn can_try(&self, machine: &MachineName, revision: Revision) -> bool {
        let candidate = self.candidate(machine);
        candidate.is_some_and(|it| it.candidate.revision == revision)
    }
}

impl World {
    /// Puts a new revision on trial, on one host and in the farm. The host has the only copy at first: one that
    /// tries another revision for the farm is left alone.
    pub(super) fn client_begins_trial(&mut self, machine: MachineName, revision: u64) {
        let host = self.rng.usize(0..2);
        let candidate = Published {
            revision: Revision(revision),
            content: Some(content(revision, false)),
        };
        if self.hosts[host].candidate(&machine).is_some() {
            return;
        }
        self.note_candidate(host, &machine, candidate.clone(), TrialNumber(0));
        let terms = ["1 of 1", "2 of 3"][self.rng.usize(0..2)];
        if let Ok(terms) = terms.parse() {
            self.client_sends(Request::BeginTrial(machine, candidate, terms));
        }
    }

    /// Ends the open trials when the faults are over. Only a revision that a host could send is promoted.
    pub(super) fn client_ends_trials(&mut self) {
        let open = self.tables.trials.iter();
        let open = open.filter(|(_, it)| it.trial.is_open());
        let open: Vec<_> = open
            .map(|(machine, it)| (machine.clone(), it.trial.number))
            .collect();
        for (machine, number) in open {
            let is_there = |it: &Host| {
                !it.is_lost && it.candidate(&machine).is_some_and(|it| it.number == number)
            };
            let is_there = self.hosts.iter().any(is_there);
            let verdict = if is_there && self.rng.bool() {
                TrialVerdict::Promoted
            } else {
                TrialVerdict::RolledBack
            };
            let reason = PERSON.to_owned();
            self.client_sends(Request::EndTrial(machine, number, verdict, reason));
        }
    }

    /// Writes a trial to the disk of a host.
    fn note_candidate(
        &mut self,
        host: usize,
        machine: &MachineName,
        candidate: Published,
        number: TrialNumber,
    ) {
        let fails = self.rng.u32(0..10) == 0;
        self.ghosts.trials.has_failed_bootstrap |= fails;
        let delay = self.rng.u64(0..500);
        self.hosts[host]
            .shelf
            .push((machine.clone(), candidate.clone()));
        let tried = Tried {
            number,
            candidate,
            is_open: true,
            ready_at: (!fails).then_some(self.now + delay),
        };
        self.hosts[host].trials.insert(machine.clone(), tried);
    }

    /// Puts a revision on trial that is on the host already, or fetches it.
    pub(super) fn try_revision(&mut self, host: usize, machine: MachineName, order: TrialOrder) {
        let it = &self.hosts[host];
        let process = it.process;
        let is_known =
            |(it, on): &(MachineName, Published)| *it == machine && *on == order.candidate;
        if it.shelf.iter().any(is_known) {
            self.note_candidate(host, &machine, order.candidate, order.number);
            let input = Input::Tried(machine, order.number);
            return self.after(1, Event::HostInput(host, process, input));
        }
        self.fetch(host, machine, order.candidate, Some(order.number));
    }

    /// Notes that a candidate has arrived.
    pub(super) fn tried(
        &mut self,
        host: usize,
        machine: &MachineName,
        candidate: &Published,
        number: TrialNumber,
    ) -> Input {
        if self.has(Bug::CandidateIsCurrent)
            && let Some(content) = candidate.content.clone()
        {
            self.publish_on(host, machine, candidate, content);
        }
        self.note_candidate(host, machine, candidate.clone(), number);
        Input::Tried(machine.clone(), number)
    }

    /// Notes the end of a trial on a host.
    pub(super) fn end_trial_on(&mut self, host: usize, machine: &MachineName, order: &TrialOrder) {
        let known = self.hosts[host].trials.get_mut(machine);
        if let Some(known) = known.filter(|it| it.number <= order.number) {
            known.is_open = false;
        }
    }

    /// Makes a revision current that is on trial on a host. Returns false if it is not.
    pub(super) fn promote_on(
        &mut self,
        host: usize,
        machine: &MachineName,
        wanted: &Published,
    ) -> bool {
        let it = &mut self.hosts[host];
        let known = it.trials.get_mut(machine);
        let Some(known) = known.filter(|it| it.candidate == *wanted) else {
            return false;
        };
        known.is_open = false;
        let Some(content) = wanted.content.clone() else {
            return false;
        };
        self.publish_on(host, machine, wanted, content);
        let process = self.hosts[host].process;
        let input = Input::Fetched(machine.clone(), wanted.revision);
        self.after(1, Event::HostInput(host, process, input));
        true
    }

    /// Returns true if the candidate of a lease is gone from its host.
    pub(super) fn lacks_candidate(&self, host: usize, lease: Lease) -> bool {
        let it = &self.hosts[host];
        let (Some(revision), Some(needs)) = (it.on_trial.get(&lease), it.needs.get(&lease)) else {
            return false;
        };
        !it.can_try(&needs.machine, *revision)
    }

    /// Notes the start of a guest, and checks that its build was not on trial before.
    pub(super) fn check_trial_start(&mut self, host: usize, lease: Lease) {
        let is_on_trial = self.hosts[host].on_trial.contains_key(&lease);
        if is_on_trial && !self.ghosts.trials.started.insert(lease.build) {
            self.violate(format!("no build runs on trial twice: {lease}"));
        }
    }

    /// Returns the outcome of a guest; `None` for one that does not end well.
    pub(super) fn guest_outcome(&mut self, host: usize, lease: Lease) -> Option<Outcome> {
        let on_trial = self.hosts[host].on_trial.get(&lease).copied();
        let is_lost = on_trial.is_some_and(is_bad) && self.rng.u32(0..4) == 0;
        let fails = on_trial.is_some_and(is_bad) || is_broken(lease);
        let outcome = match self.rng.u32(0..4) {
            _ if is_lost => None,
            _ if fails => Some(Outcome::Error),
            0 => Some(Outcome::Error),
            _ => Some(Outcome::Success),
        };
        if on_trial.is_some() {
            let end = outcome.unwrap_or(Outcome::Abnormal);
            self.ghosts.trials.ends.insert(lease, end);
        }
        outcome
    }

    /// Gives the verdicts on trials that a coordinator has read.
    pub(super) fn trials_answer(&mut self, coordinator: usize, mut states: Vec<TrialState>) {
        for state in &mut states {
            break_evidence(self.bug, state);
        }
        let hosts = self.coordinators[coordinator].view.hosts.clone();
        let hosts: BTreeMap<_, _> = hosts
            .iter()
            .map(|(host, row)| (host.0.to_string(), &row.offer))
            .collect();
        for state in states {
            let Some((verdict, reason)) = state.verdict(&hosts) else {
                continue;
            };
            let end = Operation::EndTrial {
                machine: state.machine,
                number: state.trial.number,
                verdict,
                reason,
            };
            let call = self.own_call(coordinator, Caller::Watch);
            self.ask(call, end);
        }
    }

    /// Checks a claim on trial while these trials were open. Returns false for any other claim.
    pub(super) fn check_trial_claim(
        &mut self,
        open: &BTreeSet<TrialNumber>,
        grant: &Grant,
    ) -> bool {
        let lease = grant.lease;
        let Some(number) = self.tables.builds[&lease.build].trial else {
            return false;
        };
        self.ghosts.trials.leases.insert(lease, number);
        if !open.contains(&number) {
            self.violate(format!(
                "no build is claimed after the end of a trial: {lease}"
            ));
        }
        true
    }

    /// Checks the end of a trial against what has happened to the guests.
    pub(super) fn check_trials(&mut self, operation: &Operation, answer: &Answer) {
        for (machine, row) in &self.tables.published {
            let key = (machine.clone(), row.revision);
            self.ghosts.trials.published.insert(key);
        }
        if let (Operation::BeginTrial(machine, candidate, _), Answer::TrialBegun(_)) =
            (operation, answer)
        {
            let key = (machine.clone(), candidate.revision);
            self.ghosts.trials.candidates.insert(key);
        }
        let Operation::EndTrial {
            machine,
            number,
            verdict,
            reason,
        } = operation
        else {
            return;
        };
        if *answer != Answer::Done || reason == PERSON {
            return;
        }
        let trial = &self.tables.trials[machine].trial;
        let of_trial = self.ghosts.trials.leases.iter();
        let of_trial = of_trial.filter(|(_, it)| *it == number).map(|(it, _)| *it);
        let ends = &self.ghosts.trials.ends;
        let good = |lease: &Lease| ends.get(lease).is_some_and(|it| it.is_good());
        let succeeded = of_trial.clone().filter(good).count();
        let differs = |lease: &Lease| !good(lease) && self.tables.is_good(*lease);
        let differ = of_trial.filter(differs).count();
        let published = self.tables.published.get(machine);
        let is_published = published.is_some_and(|it| it.revision >= trial.candidate.revision);
        let is_true = match verdict {
            TrialVerdict::Promoted if reason == "it was published" => is_published,
            TrialVerdict::Promoted => succeeded >= trial.terms.builds(),
            TrialVerdict::RolledBack if reason.contains("was published") => is_published,
            TrialVerdict::RolledBack if reason.contains("bootstrap") => {
                self.ghosts.trials.has_failed_bootstrap
            }
            TrialVerdict::RolledBack => differ >= trial.terms.strikes_max(),
        };
        if !is_true {
            self.violate(format!("a verdict has its evidence: {verdict}, {reason}"));
        }
    }

    /// Checks a result that a build has got.
    pub(super) fn check_trial_result(&mut self, build: config::BuildId, outcome: Outcome) {
        let record = &self.tables.builds[&build];
        let lease = Lease {
            build,
            epoch: record.epoch,
        };
        let is_on_trial = self.ghosts.trials.leases.contains_key(&lease);
        let is_unused = !self.ghosts.trials.ends.contains_key(&lease) && outcome == Outcome::Abort;
        let is_canceled = outcome == Outcome::Abort && record.canceled;
        if is_on_trial && !outcome.is_good() && !is_canceled && !is_unused {
            self.violate(format!("no build fails because of a trial: {lease}"));
        }
    }

    /// Returns the machine of a host whose current revision is a candidate that was not promoted.
    pub(super) fn unpromoted(&self, host: &Host) -> Option<MachineName> {
        let ghosts = &self.ghosts.trials;
        let is_unpromoted = |(machine, revision): (&MachineName, &Revision)| {
            let key = (machine.clone(), *revision);
            ghosts.candidates.contains(&key) && !ghosts.published.contains(&key)
        };
        let found = host.revisions.iter().find(|it| is_unpromoted(*it));
        found.map(|(machine, _)| machine.clone())
    }

    /// Returns true if no trial is open, also on hosts that are not lost.
    pub(super) fn are_trials_over(&self) -> bool {
        let is_open = |host: &Host| {
            let mut trials = self.tables.trials.iter();
            trials.any(|(machine, it)| {
                let candidate = host.candidate(machine);
                candidate.is_some_and(|tried| tried.number == it.trial.number)
            })
        };
        let is_over = self.tables.trials.values().all(|it| !it.trial.is_open());
        is_over && !self.hosts.iter().any(|it| !it.is_lost && is_open(it))
    }
}

impl Tables {
    /// Returns true if the build of a lease has succeeded under a later one.
    fn is_good(&self, lease: Lease) -> bool {
        let build = &self.builds[&lease.build];
        let is_good = matches!(build.state, State::Finished(outcome, _) if outcome.is_good());
        is_good && build.epoch > lease.epoch
    }
}

/// Changes the evidence as a bug would.
fn break_evidence(bug: Option<Bug>, state: &mut TrialState) {
    match bug {
        Some(Bug::RunningIsSuccess) => {
            for build in &mut state.builds {
                build.result.get_or_insert(TrialResult::Succeeded);
            }
        }
        Some(Bug::FailureIsNotCompared) => {
            for build in &mut state.builds {
                if !matches!(build.result, None | Some(TrialResult::Succeeded)) {
                    build.outcome = Some(Outcome::Success);
                }
            }
        }
        _ => {}
    }
}

/// Changes the effect of an operation or its answer, as a bug of trials would.
pub(super) fn break_trials(
    bug: Bug,
    before: &Tables,
    tables: &mut Tables,
    operation: &Operation,
    answer: &mut Answer,
) {
    match (bug, operation, answer) {
        (Bug::ClaimIgnoresTrialEnd, Operation::Claim { .. }, _) => {
            tables.trials.clone_from(&before.trials);
        }
        (Bug::ClaimIgnoresTrialEnd, _, Answer::Candidates { vacancies, .. }) => {
            let trials = tables.trials.values();
            vacancies.extend(trials.map(|it| (it.trial.number, 1)));
        }
        (Bug::ClaimIgnoresTrialEnd, _, Answer::Beats(answers)) => {
            let is_queued = |it: &BuildRecord| matches!(it.state, State::Queued(_));
            let may_claim = tables.builds.values().any(is_queued);
            for trial in trials_of(answers).filter(|_| may_claim) {
                trial.end = None;
            }
        }
        (Bug::TriedIsForgotten, ..) => {
            for build in tables.builds.values_mut() {
                build.tried = false;
            }
        }
        (Bug::EndOfTrialIsNotTold, _, Answer::Beats(answers)) => {
            for answer in answers {
                if let Answer::Beaten { trials, .. } = answer {
                    trials.retain(|_, it| it.is_open());
                }
            }
        }
        _ => {}
    }
}

/// Returns the trials in the answers to beats.
fn trials_of(answers: &mut [Answer]) -> impl Iterator<Item = &mut Trial> {
    answers.iter_mut().flat_map(|answer| match answer {
        Answer::Beaten { trials, .. } => trials.values_mut().collect(),
        _ => Vec::new(),
    })
}
