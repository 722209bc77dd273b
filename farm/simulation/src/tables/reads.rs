//! The reads of the store.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use config::builds::Submitter;
use config::{BuildId, MachineName};
use farm_core::operation::{Answer, Candidate};

use super::{BuildRecord, DAY_MS, State, Tables, is_due};

/// The days after which use is forgotten. That of each day counts half of the day after it.
const DAYS_MAX: u64 = 7;
/// The builds of which the usual duration is the mean.
const USUAL_MAX: usize = 5;

impl Tables {
    pub(super) fn candidates(&self, now: u64, machines: &[MachineName], most: u64) -> Answer {
        let mut lanes: BTreeMap<_, Vec<(BuildId, &BuildRecord)>> = BTreeMap::new();
        for (build, record) in &self.builds {
            let machine = &record.submission.requirements.machine;
            let due = matches!(record.state, State::Queued(not_before) if is_due(not_before, now));
            if due && machines.contains(machine) && self.has_sources(now, record) {
                let lane = (machine, &record.submission.submitter);
                lanes.entry(lane).or_default().push((*build, record));
            }
        }
        let is_soon = self.has_window_soon(now);
        let mut builds = Vec::new();
        for lane in lanes.values_mut() {
            lane.sort_by_key(|(build, record)| (Reverse(record.submission.priority), *build));
            lane.truncate(usize::try_from(most).unwrap_or(usize::MAX));
            builds.extend(lane.iter().map(|(build, record)| Candidate {
                build: *build,
                epoch: record.epoch,
                submitter: record.submission.submitter.clone(),
                priority: record.submission.priority,
                requirements: record.submission.requirements.clone(),
                waited_ms: now.saturating_sub(record.submitted_at),
                usual_ms: is_soon.then(|| self.usual_ms(record)).flatten(),
                may_be_on_trial: record.may_be_on_trial(),
            }));
        }
        builds.sort_by_key(|it| it.build);
        let used_ms = builds
            .iter()
            .map(|it| (it.submitter.clone(), self.used(now, &it.submitter)))
            .collect();
        let vacancies = self.open_trials();
        let vacancies = vacancies.iter().map(|it| (it.trial.number, it.vacancies()));
        Answer::Candidates {
            builds,
            used_ms,
            vacancies: vacancies.collect(),
        }
    }

    /// Returns true if a window of a host begins within a day.
    fn has_window_soon(&self, now: u64) -> bool {
        let mut windows = self.hosts.values().flat_map(|it| it.windows.values());
        windows.any(|it| now < it.occurrence.opens_ms && it.occurrence.opens_ms < now + DAY_MS)
    }

    /// Returns the time that the last good builds of the same target on the same machine took.
    fn usual_ms(&self, wanted: &BuildRecord) -> Option<u64> {
        let wanted = &wanted.submission;
        let target = wanted.subject.target.as_ref()?;
        let is_same = |it: &&BuildRecord| {
            let is_good = matches!(it.state, State::Finished(outcome, _) if outcome.is_good());
            let own = &it.submission;
            let is_same = own.requirements.machine == wanted.requirements.machine;
            is_good && is_same && own.subject.target.as_ref() == Some(target)
        };
        let last = self.builds.values().rev().filter(is_same).take(USUAL_MAX);
        let last: Vec<_> = last
            .map(|it| it.finished_at.saturating_sub(it.claimed_at))
            .collect();
        let sum: u64 = last.iter().sum();
        sum.checked_div(last.len() as u64)
    }

    fn used(&self, now: u64, submitter: &Submitter) -> u64 {
        let today = now / DAY_MS;
        let days = self.used_ms.iter().filter(|((it, _), _)| it == submitter);
        days.filter_map(|((_, day), used)| {
            let age = today.saturating_sub(*day);
            let used = u64::try_from(*used).unwrap_or(0);
            (age < DAYS_MAX).then(|| used >> age)
        })
        .sum()
    }

    pub(super) fn all_hosts(&self, now: u64) -> Answer {
        let rows = self.hosts.iter().map(|(host, record)| {
            let leases = self
                .builds
                .values()
                .filter(|it| it.host == Some(*host) && matches!(it.state, State::Leased(_)));
            record.row(now, *host, leases.count())
        });
        Answer::Hosts(rows.collect())
    }

    pub(super) fn show(&self, build: BuildId) -> Answer {
        let found = self.builds.get(&build);
        found.map_or(Answer::NotFound, |it| Answer::Build(it.row()))
    }
}
