//! The parts of hosts that seldom change, as this process has read them: names, keys, offers, and the
//! places from which the leases of each host are read. And the use of submitters that is not written yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farm_core::{HostId, Offer};

use crate::Secret;
use crate::operations::signed;

/// The time after which keys are read from the database again, if the hosts were not read meanwhile.
pub(crate) const FRESH: Duration = Duration::from_secs(5);

/// A host as it was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) version: u64,
    pub(crate) name: String,
    pub(crate) key: Option<Secret>,
    pub(crate) offer: Arc<Offer>,
}

/// The place from which the leases of a host are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Floor {
    /// The beat at which it was found.
    beat: u64,
    /// The claim of the oldest lease.
    claim: u64,
}

/// Everything that is known of the hosts.
#[derive(Debug, Default)]
pub(crate) struct Known {
    details: BTreeMap<HostId, Details>,
    keys: BTreeMap<Secret, HostId>,
    read: Option<Instant>,
    floors: BTreeMap<HostId, Floor>,
    /// The use of submitters on days, counted from the year 2000, that is not written yet.
    charges: BTreeMap<(String, i32), i64>,
}

impl Known {
    /// Returns the hosts whose details are missing or have another version.
    pub(crate) fn outdated(&self, hosts: impl Iterator<Item = (HostId, u64)>) -> Vec<HostId> {
        let is_known = |(host, version): &(HostId, u64)| {
            let known = self.details.get(host);
            known.is_some_and(|it| it.version == *version)
        };
        hosts
            .filter(|it| !is_known(it))
            .map(|(host, _)| host)
            .collect()
    }

    /// Notes the details of hosts that were asked for at a time. Older ones do not replace newer ones.
    pub(crate) fn note(&mut self, asked: Instant, details: Vec<(HostId, Details)>) {
        for (host, new) in details {
            let last = self.details.get(&host);
            if last.is_some_and(|it| it.version > new.version) {
                continue;
            }
            self.remove(host);
            if let Some(key) = new.key {
                self.keys.insert(key, host);
            }
            self.details.insert(host, new);
        }
        self.read = self.read.max(Some(asked));
    }

    /// Returns the offer of a host.
    pub(crate) fn offer(&self, host: HostId) -> Offer {
        let known = self.details.get(&host);
        known.map(|it| Offer::clone(&it.offer)).unwrap_or_default()
    }

    /// Returns the name and the offer of a host.
    pub(crate) fn site(&self, host: HostId) -> Option<(String, Arc<Offer>)> {
        let known = self.details.get(&host)?;
        Some((known.name.clone(), Arc::clone(&known.offer)))
    }

    /// Returns the name of a host.
    pub(crate) fn name(&self, host: HostId) -> Option<String> {
        self.details.get(&host).map(|it| it.name.clone())
    }

    /// Returns the host of a key, if the hosts were read lately.
    pub(crate) fn host_of(&self, key: &Secret, now: Instant) -> Option<(HostId, String)> {
        let read = self.read?;
        if now.saturating_duration_since(read) > FRESH {
            return None;
        }
        let host = *self.keys.get(key)?;
        Some((host, self.details.get(&host)?.name.clone()))
    }

    /// Forgets a host whose key is taken away, so that its details are read again.
    pub(crate) fn forget(&mut self, name: &str) {
        let host = self.details.iter().find(|(_, it)| it.name == name);
        if let Some((host, _)) = host {
            self.remove(*host);
        }
    }

    fn remove(&mut self, host: HostId) {
        if let Some(key) = self.details.remove(&host).and_then(|it| it.key) {
            self.keys.remove(&key);
        }
    }

    /// Returns the claim from which the leases of a host are read at a beat.
    ///
    /// Claims of a host have rising beats, and a lease that is over never comes back. So the oldest lease
    /// that was found is the oldest one that can be found. Lower beats come from a backup: then all leases
    /// are read.
    pub(crate) fn floor(&self, host: HostId, beat: u64) -> u64 {
        let known = self.floors.get(&host);
        known.map_or(0, |it| if it.beat < beat { it.claim } else { 0 })
    }

    /// Returns the hosts with the beats and claims from which their leases are read, as three columns.
    pub(crate) fn floors(&self) -> [Vec<i64>; 3] {
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for (host, floor) in &self.floors {
            let row = [host.0, floor.beat, floor.claim];
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(signed(value));
            }
        }
        columns
    }

    /// Demands that all leases are read.
    pub(crate) fn forget_floors(&mut self) {
        self.floors.clear();
    }

    /// Notes the claim of the oldest lease that was found at a beat. A host without leases has none older than its beat.
    pub(crate) fn note_floor(&mut self, host: HostId, beat: u64, oldest: Option<u64>) {
        let claim = oldest.unwrap_or(beat);
        self.floors.insert(host, Floor { beat, claim });
    }

    /// Adds to the use of a submitter, which is written when the queue is read the next time.
    pub(crate) fn charge(&mut self, submitter: String, day: i32, ms: i64) {
        if ms != 0 {
            *self.charges.entry((submitter, day)).or_default() += ms;
        }
    }

    /// Returns the use that is not written yet, and forgets it.
    pub(crate) fn take_charges(&mut self) -> BTreeMap<(String, i32), i64> {
        std::mem::take(&mut self.charges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostId = HostId(7);

    fn details(version: u64, key: Option<Secret>) -> Vec<(HostId, Details)> {
        let details = Details {
            version,
            name: "seven".to_owned(),
            key,
            offer: Arc::default(),
        };
        vec![(HOST, details)]
    }

    #[test]
    fn a_key_counts_until_it_is_replaced_or_was_not_read_for_a_time() {
        let mut known = Known::default();
        let now = Instant::now();
        assert_eq!(known.host_of(&[1; 32], now), None);
        known.note(now, details(1, Some([1; 32])));
        let host = Some((HOST, "seven".to_owned()));
        assert_eq!(known.host_of(&[1; 32], now + FRESH), host);
        let later = now + FRESH + Duration::from_millis(1);
        assert_eq!(known.host_of(&[1; 32], later), None);
        known.note(later, details(2, Some([2; 32])));
        assert_eq!(known.host_of(&[1; 32], later), None);
        // An answer that was late.
        known.note(later, details(1, Some([1; 32])));
        assert_eq!(known.host_of(&[2; 32], later), host);
        known.forget("seven");
        assert_eq!(known.host_of(&[2; 32], later), None);
        assert_eq!(known.outdated([(HOST, 2)].into_iter()), [HOST]);
    }

    #[test]
    fn leases_are_read_from_the_oldest_one_on() {
        let mut known = Known::default();
        assert_eq!(known.floor(HOST, 10), 0);
        known.note_floor(HOST, 10, Some(4));
        assert_eq!(known.floor(HOST, 11), 4);
        known.note_floor(HOST, 11, None);
        assert_eq!(known.floor(HOST, 12), 11);
        assert_eq!(known.floor(HOST, 11), 0, "a backup was restored");
    }
}
