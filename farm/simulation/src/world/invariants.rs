//! The invariants, checked after each step.

use std::collections::{BTreeMap, BTreeSet};

use config::task::{Digest, Outcome};
use config::{BuildId, MachineName, ScheduleName};
use farm_core::messages::{Grant, Reply, Request};
use farm_core::operation::{Answer, Operation, Pick};
use farm_core::trials::TrialNumber;
use farm_core::windows::Window;
use farm_core::{HostId, Lease, Published, Revision};

use super::host::CPUS;
use super::schedules::ScheduleGhosts;
use super::transfers::is_faulty;
use super::trials::TrialGhosts;
use super::{HOSTS, TERMS, World};
use crate::Bug;
use crate::tables::{BuildRecord, ScheduleRecord, State, Tables};

/// The facts before a transaction that are compared with those after it.
#[derive(Debug)]
pub(crate) struct Before {
    published: BTreeMap<MachineName, Published>,
    drained: BTreeSet<HostId>,
    /// The losses of all builds.
    losses: u64,
    in_windows: BTreeSet<HostId>,
    pub(super) open_trials: BTreeSet<TrialNumber>,
    schedules: BTreeMap<ScheduleName, ScheduleRecord>,
    /// The number of builds.
    builds: usize,
}

/// Facts about the past that no actor knows.
#[derive(Debug, Default)]
pub(crate) struct Ghosts {
    guests: u64,
    granted: BTreeSet<Lease>,
    known: BTreeSet<Lease>,
    results: BTreeMap<BuildId, State>,
    started: BTreeSet<Lease>,
    last_leases: BTreeMap<HostId, Vec<Grant>>,
    stored: BTreeSet<(usize, Lease)>,
    submitted: BTreeMap<String, BuildId>,
    canceled: BTreeSet<BuildId>,
    /// True if a coordinator has lost its disk.
    pub(super) is_disk_lost: bool,
    /// True if a source was forgotten.
    pub(super) has_forgotten: bool,
    pub(super) schedules: ScheduleGhosts,
    pub(super) trials: TrialGhosts,
    claimed: BTreeMap<MachineName, Revision>,
    current: [BTreeMap<MachineName, Revision>; HOSTS],
    contents: BTreeMap<(MachineName, Revision), Option<Digest>>,
}

impl Ghosts {
    pub(crate) fn next_guest(&mut self) -> u64 {
        self.guests += 1;
        self.guests
    }

    pub(crate) fn granted(&mut self, lease: Lease) {
        self.granted.insert(lease);
    }

    pub(crate) fn known(&mut self, lease: Lease) {
        self.known.insert(lease);
    }

    /// Returns true if a lease was never in an answer, or if its host knows it.
    pub(crate) fn was_granted_once(&self, lease: Lease) -> bool {
        !self.granted.contains(&lease) || self.known.contains(&lease)
    }

    /// Breaks the answers to beats.
    pub(crate) fn break_beats(&mut self, bug: Bug, operation: &Operation, answers: &mut [Answer]) {
        let Operation::Beats(beats) = operation else {
            return;
        };
        if bug == Bug::BatchMixesHosts {
            answers.rotate_left(1);
        }
        for ((host, _), answer) in beats.iter().zip(answers) {
            let Answer::Beaten { leases, .. } = answer else {
                continue;
            };
            if bug == Bug::LeasesAreCached {
                let last = self.last_leases.insert(*host, leases.clone());
                *leases = last.unwrap_or_default();
            }
            if bug == Bug::LeasesMissOlderClaims {
                leases.drain(..leases.len().saturating_sub(1));
            }
        }
    }

    /// Notes that a machine of a host was deleted by hand, after which an older revision may come.
    pub(super) fn deleted(&mut self, host: usize, machine: &MachineName) {
        self.current[host].remove(machine);
    }

    /// Returns true if all builds on the revision of a pick have the same content.
    pub(super) fn has_one_content(&mut self, machine: &MachineName, pick: &Pick) -> bool {
        let key = (machine.clone(), pick.revision);
        let known = self
            .contents
            .entry(key)
            .or_insert_with(|| pick.content.clone());
        *known == pick.content
    }

    pub(crate) fn result_stored(&mut self, host: usize, lease: Lease) {
        self.stored.insert((host, lease));
    }
}

impl World {
    /// Checks the invariants that hold at every instant.
    pub(crate) fn check(&mut self) {
        let mut broken = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            if !host.is_executing() {
                continue;
            }
            let mut cpus = 0;
            for lease in host.guests.keys() {
                cpus += host.needs.get(lease).map_or(0, |it| it.cpus);
                if !self.tables.has_lease(HostId(number as u64), *lease) {
                    broken.push(format!("no guest without a lease: host {number}, {lease}"));
                }
            }
            if cpus > CPUS {
                broken.push(format!(
                    "no host runs more than fits: host {number}, {cpus}"
                ));
            }
            if let Some(machine) = self.unpromoted(host) {
                broken.push(format!(
                    "no host has a candidate as its current revision: host {number}, {machine}"
                ));
            }
            for (machine, revision) in &host.revisions {
                let seen = self.ghosts.current[number]
                    .entry(machine.clone())
                    .or_default();
                if revision < seen {
                    broken.push(format!(
                        "a revision never goes down: host {number}, {machine}"
                    ));
                }
                *seen = *revision;
                if host.contents.get(machine).is_some_and(is_faulty) {
                    broken.push(format!(
                        "no host offers a revision whose content was not verified: host {number}, {machine}"
                    ));
                }
            }
        }
        if let Some(message) = broken.into_iter().next() {
            self.violate(message);
        }
    }

    /// Checks the start of a guest.
    pub(crate) fn check_start(&mut self, host: usize, lease: Lease) {
        self.check_sources(host, lease);
        if !self.ghosts.started.insert(lease) {
            self.violate(format!("no two guests of one lease: host {host}, {lease}"));
        }
        if self.ghosts.stored.contains(&(host, lease)) {
            self.violate(format!("no stored result is lost: host {host}, {lease}"));
        }
    }

    /// Returns the facts before a transaction.
    pub(crate) fn before(&self) -> Before {
        let hosts = self.tables.hosts.iter();
        let now = self.store_clock();
        let is_open = |windows: &BTreeMap<_, Window>| windows.values().any(|it| it.is_open(now));
        let in_windows = hosts.clone().filter(|(_, it)| is_open(&it.windows));
        Before {
            open_trials: self.tables.open_trial_numbers(),
            in_windows: in_windows.map(|(it, _)| *it).collect(),
            published: self.tables.published.clone(),
            drained: hosts
                .filter(|(_, it)| it.drained)
                .map(|(it, _)| *it)
                .collect(),
            losses: self.losses(),
            schedules: self.tables.schedules.clone(),
            builds: self.tables.builds.len(),
        }
    }

    /// Returns the losses of all builds.
    fn losses(&self) -> u64 {
        self.tables.builds.values().map(|it| it.losses).sum()
    }

    /// Checks the effect of a transaction.
    pub(crate) fn committed(&mut self, before: &Before, operation: &Operation, answer: &Answer) {
        if let Answer::Rescued(leases) = answer {
            self.statistics.rescued += leases.len() as u64;
        }
        if let Operation::Release {
            lease, is_unused, ..
        } = operation
            && *is_unused
        {
            if self.losses() > before.losses {
                self.violate(format!("a lease without a guest is no loss: {lease}"));
            }
            if self.ghosts.started.contains(lease) {
                self.violate(format!("a guest that has started is lost: {lease}"));
            }
        }
        self.check_schedules((&before.schedules, before.builds), operation, answer);
        if let (Operation::Claim { host, .. }, Answer::Claimed(grants)) = (operation, answer) {
            for grant in grants {
                self.check_claim(before, *host, grant);
            }
        }
        self.check_trials(operation, answer);
        self.check_needed();
        self.discarded(operation, answer);
        self.check_contents(operation, answer);
        if let (Operation::Publish(machine, wanted), Answer::Published(current)) =
            (operation, answer)
            && *current == wanted.revision
        {
            self.push_revision(machine, wanted);
        }
        if let (Operation::Archive(lease, _), Answer::Done) = (operation, answer) {
            self.check_archives(*lease);
        }
        for (machine, published) in &before.published {
            let now = self.tables.published.get(machine).cloned();
            let now = now.unwrap_or_default();
            if now.revision < published.revision {
                self.violate(format!("a revision never goes down: {machine}"));
            }
            if now.revision == published.revision && now.content != published.content {
                self.violate(format!("a published revision keeps its content: {machine}"));
            }
        }
        let finished: Vec<_> = self
            .tables
            .builds
            .iter()
            .filter(|(_, it)| matches!(it.state, State::Finished(..)))
            .map(|(build, it)| (*build, it.clone()))
            .collect();
        let lost = self.ghosts.results.keys().find(|build| {
            let found = self.tables.builds.get(build);
            !found.is_some_and(|it| matches!(it.state, State::Finished(..)))
        });
        if let Some(build) = lost.copied() {
            self.violate(format!("one result per build: {build} has lost it"));
        }
        for (build, record) in finished {
            self.check_result(build, &record);
        }
    }

    fn check_claim(&mut self, before: &Before, host: HostId, grant: &Grant) {
        let lease = grant.lease;
        let record = self.tables.builds[&lease.build].clone();
        let machine = record.submission.requirements.machine.clone();
        if before.drained.contains(&host) {
            self.violate(format!("no drained host gets a build: {lease}"));
        }
        if before.in_windows.contains(&host) {
            self.violate(format!("no host gets a build in its window: {lease}"));
        }
        if self.ghosts.canceled.contains(&lease.build) {
            self.violate(format!("no canceled build starts again: {lease}"));
        }
        let started = self.ghosts.started.iter();
        let started = started.filter(|it| it.build == lease.build).count() as u64;
        let failed = self.tables.runs.get(&lease.build);
        let on_trial = failed.is_some_and(|it| it.failure.is_some() && it.epoch < lease.epoch);
        if started > record.losses + u64::from(on_trial) || record.losses >= TERMS.attempts_max {
            self.violate(format!("no build is tried for ever: {lease}"));
        }
        if self.check_trial_claim(&before.open_trials, grant) {
            return;
        }
        let Some(published) = before.published.get(&machine) else {
            return;
        };
        let last = self.ghosts.claimed.entry(machine).or_default();
        if published.revision != record.revision || *last > record.revision {
            self.violate(format!("a revision never goes down: the one of {lease}"));
        } else {
            *last = record.revision;
        }
    }

    fn check_result(&mut self, build: BuildId, record: &BuildRecord) {
        let is_noted =
            self.tables.uploads.contains_key(&build) || self.tables.archives.contains_key(&build);
        if matches!(record.state, State::Finished(_, Some(_))) && !is_noted {
            self.violate(format!("the log of no result is forgotten: {build}"));
        }
        match self.ghosts.results.get(&build) {
            Some(known) if *known == record.state => {}
            Some(_) => self.violate(format!("one result per build: {build}")),
            None => {
                self.statistics.finished += 1;
                self.ghosts.results.insert(build, record.state.clone());
                if let State::Finished(outcome, _) = &record.state {
                    self.check_trial_result(build, *outcome);
                }
                if let State::Finished(Outcome::Success | Outcome::Error, by) = &record.state {
                    self.check_reporter(build, *by);
                }
            }
        }
    }

    /// Checks that a result comes from a guest, and that its host cannot lose it.
    fn check_reporter(&mut self, build: BuildId, by: Option<(HostId, farm_core::Epoch)>) {
        let is_true = by.is_some_and(|(host, epoch)| {
            let lease = Lease { build, epoch };
            let host = usize::try_from(host.0).unwrap_or(usize::MAX);
            self.ghosts.stored.contains(&(host, lease))
        });
        if !is_true {
            self.violate(format!(
                "each result is on the disk of a host with the lease: {build}"
            ));
        }
    }

    /// Checks what a coordinator tells a host.
    pub(crate) fn replied(&mut self, reply: &Reply) {
        if let Reply::Recorded(lease) = reply {
            let found = self.tables.builds.get(&lease.build).map(|it| &it.state);
            let run = self.tables.runs.get(&lease.build);
            let has_failed = run.is_some_and(|it| it.epoch == lease.epoch && it.failure.is_some());
            if !has_failed
                && !matches!(found, Some(State::Finished(_, Some((_, epoch)))) if *epoch == lease.epoch)
            {
                self.violate(format!("an acknowledged result is stored: {lease}"));
            }
        }
    }

    /// Checks what a coordinator tells a client.
    pub(crate) fn acknowledged(&mut self, request: &Request, reply: &Reply) {
        match (request, reply) {
            (Request::Submit(submission), Reply::Submitted(build)) => {
                let known = self.ghosts.submitted.insert(submission.key.clone(), *build);
                let is_there = self.tables.builds.contains_key(build);
                if !is_there || known.is_some_and(|known| known != *build) {
                    self.violate(format!("no build is lost: {}", submission.key));
                }
                self.check_single(&submission.key);
            }
            (_, Reply::Canceled(build)) => {
                self.ghosts.canceled.insert(*build);
            }
            _ => {}
        }
    }

    /// Checks that one submission has made one build.
    fn check_single(&mut self, key: &str) {
        let same = |it: &&BuildRecord| it.submission.key.split('-').next() == Some(key);
        if self.tables.builds.values().filter(same).count() > 1 {
            self.violate(format!("one build per submission: {key}"));
        }
    }
}

impl Tables {
    /// Returns the numbers of the trials that are open.
    fn open_trial_numbers(&self) -> BTreeSet<TrialNumber> {
        let open = self.trials.values().filter(|it| it.trial.is_open());
        open.map(|it| it.trial.number).collect()
    }

    /// Returns true if a host has a lease.
    fn has_lease(&self, host: HostId, lease: Lease) -> bool {
        self.builds.get(&lease.build).is_some_and(|it| {
            it.host == Some(host) && it.epoch == lease.epoch && matches!(it.state, State::Leased(_))
        })
    }
}
