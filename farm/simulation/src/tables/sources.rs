//! Sources: the coordinators that have copies, and the builds that need them.

use std::collections::BTreeSet;

use config::task::Digest;
use farm_core::copies::{CoordinatorName, Copies, SEEN_MS};
use farm_core::operation::Answer;

use super::{BuildRecord, ScheduleRecord, State, Tables};

/// A coordinator that keeps sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The number of its signs of life.
    pub beat: u64,
    /// The time of the last one.
    pub seen: u64,
}

impl Tables {
    /// Adds a coordinator that keeps sources.
    pub fn register(&mut self, coordinator: CoordinatorName) {
        self.coordinators.entry(coordinator).or_default();
    }

    pub(super) fn copies(&mut self, now: u64, key: &str, digests: &[Digest]) -> Answer {
        let same = |(_, it): &(_, &BuildRecord)| it.submission.key == key;
        if let Some((build, _)) = self.builds.iter().find(same) {
            return Answer::Submitted(*build);
        }
        let mut copies = Copies::new();
        for digest in digests {
            let Some(used) = self.sources.get_mut(digest) else {
                continue;
            };
            *used = now;
            if let Some(holders) = self.copies.get(digest) {
                copies.insert(digest.clone(), holders.clone());
            }
        }
        Answer::Copies(copies)
    }

    /// Notes that sources are needed. Returns those that are not known.
    pub(super) fn need(&mut self, now: u64, digests: &[Digest]) -> Vec<Digest> {
        let unknown = digests.iter().filter(|it| !self.sources.contains_key(*it));
        let unknown: Vec<_> = unknown.cloned().collect();
        for digest in digests {
            if let Some(used) = self.sources.get_mut(digest) {
                *used = now;
            }
        }
        unknown
    }

    pub(super) fn keep(
        &mut self,
        now: u64,
        digest: Digest,
        coordinator: CoordinatorName,
    ) -> Answer {
        self.sources.insert(digest.clone(), now);
        self.copies.entry(digest).or_default().insert(coordinator);
        Answer::Done
    }

    pub(super) fn lose(&mut self, digest: &Digest, coordinator: &CoordinatorName) -> Answer {
        self.remove_copy(digest, coordinator);
        Answer::Done
    }

    pub(super) fn expire(&mut self, now: u64, age_ms: u64) -> Answer {
        let builds = self.builds.values();
        let unfinished = builds.filter(|it| !matches!(it.state, State::Finished(..)));
        let schedules = self.schedules.values();
        let needed: BTreeSet<_> = unfinished
            .flat_map(BuildRecord::digests)
            .chain(schedules.flat_map(ScheduleRecord::digests))
            .collect();
        let is_old = |used: &u64| *used < now.saturating_sub(age_ms);
        let old = self.sources.iter();
        let old = old.filter(|(digest, used)| is_old(used) && !needed.contains(*digest));
        let old: Vec<_> = old.map(|(digest, _)| digest.clone()).collect();
        self.sources.retain(|digest, _| !old.contains(digest));
        Answer::Expired(old)
    }

    pub(super) fn discard(&mut self, digest: &Digest, coordinator: &CoordinatorName) -> Answer {
        if !self.sources.contains_key(digest) && self.remove_copy(digest, coordinator) {
            Answer::Done
        } else {
            Answer::NotFound
        }
    }

    fn remove_copy(&mut self, digest: &Digest, coordinator: &CoordinatorName) -> bool {
        let Some(holders) = self.copies.get_mut(digest) else {
            return false;
        };
        let had = holders.remove(coordinator);
        if holders.is_empty() {
            self.copies.remove(digest);
        }
        had
    }

    pub(super) fn attend(&mut self, now: u64, coordinator: &CoordinatorName) -> Answer {
        if let Some(record) = self.coordinators.get_mut(coordinator) {
            record.beat += 1;
            record.seen = now;
        }
        let coordinators = self.coordinators.iter();
        let beats = coordinators.map(|(name, it)| (name.clone(), it.beat));
        Answer::Attending(beats.collect())
    }

    /// Returns true if all sources of a build are on coordinators that were seen lately.
    pub(super) fn has_sources(&self, now: u64, build: &BuildRecord) -> bool {
        let is_seen = |name: &CoordinatorName| {
            let record = self.coordinators.get(name);
            record.is_some_and(|it| it.seen + SEEN_MS > now)
        };
        build.digests().iter().all(|digest| {
            let holders = self.copies.get(digest);
            holders.is_some_and(|it| it.iter().any(is_seen))
        })
    }
}

impl BuildRecord {
    /// Returns the hashes of its sources.
    pub fn digests(&self) -> Vec<Digest> {
        self.submission.requirements.work.digests()
    }
}

impl ScheduleRecord {
    /// Returns the hashes of its sources.
    pub fn digests(&self) -> Vec<Digest> {
        self.schedule.requirements.work.digests()
    }
}
