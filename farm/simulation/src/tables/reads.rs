//! The reads of the store.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use config::builds::Submitter;
use config::{BuildId, MachineName};
use farm_core::operation::{Answer, Candidate};

use super::{BuildRecord, DAY_MS, State, Tables, is_due};

/// The days after which use is forgotten. That of each day counts half of the day after it.
const DAYS_MAX: u64 = 7;

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
            }));
        }
        builds.sort_by_key(|it| it.build);
        let used_ms = builds
            .iter()
            .map(|it| (it.submitter.clone(), self.used(now, &it.submitter)))
            .collect();
        Answer::Candidates { builds, used_ms }
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

    pub(super) fn all_hosts(&self) -> Answer {
        let rows = self.hosts.iter().map(|(host, record)| {
            let leases = self
                .builds
                .values()
                .filter(|it| it.host == Some(*host) && matches!(it.state, State::Leased(_)));
            record.row(*host, leases.count())
        });
        Answer::Hosts(rows.collect())
    }

    pub(super) fn show(&self, build: BuildId) -> Answer {
        let found = self.builds.get(&build);
        found.map_or(Answer::NotFound, |it| Answer::Build(it.row()))
    }
}
