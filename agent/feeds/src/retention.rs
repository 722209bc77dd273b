//! The packages that a repository keeps; pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::time::Duration;

use jiff::Timestamp;

use crate::index::Entry;
use crate::package::PackageId;

/// The limits of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// The number of versions of a package on an architecture.
    pub versions_max: NonZeroUsize,
    /// The age from which versions go, except the newest one of a package.
    pub age_max: Option<Duration>,
}

impl Retention {
    /// Returns the packages that go. The greatest version of a package on an architecture stays.
    pub fn expired(&self, entries: &[Entry], now: Timestamp) -> BTreeSet<PackageId> {
        let mut packages: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for entry in entries {
            let id = &entry.id;
            let key = (id.kind, &id.name, &id.architecture);
            packages.entry(key).or_default().push(entry);
        }
        let mut expired = BTreeSet::new();
        for mut versions in packages.into_values() {
            versions.sort_by(|a, b| {
                let order = crate::compare_versions(&b.id.version, &a.id.version);
                order.then_with(|| (Reverse(a.added), &a.id).cmp(&(Reverse(b.added), &b.id)))
            });
            let goes = |(place, entry): &(usize, &&Entry)| {
                *place >= self.versions_max.get() || (*place > 0 && self.is_old(entry, now))
            };
            let going = versions.iter().enumerate().filter(goes);
            expired.extend(going.map(|(_, entry)| entry.id.clone()));
        }
        expired
    }

    fn is_old(&self, entry: &Entry, now: Timestamp) -> bool {
        let age = Duration::try_from(now.duration_since(entry.added));
        self.age_max
            .is_some_and(|max| age.is_ok_and(|age| age >= max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::entry;

    fn expired(entries: &[Entry], versions: usize, hours: Option<u64>) -> Vec<String> {
        let retention = Retention {
            versions_max: NonZeroUsize::new(versions).unwrap(),
            age_max: hours.map(Duration::from_hours),
        };
        let now = Timestamp::from_second(100 * 3600).unwrap();
        let expired = retention.expired(entries, now);
        expired.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_greatest_versions_stay_however_they_were_published() {
        let entries = [
            "a 1.0-r10 amd64 deb",
            "a 1.0-r9 amd64 deb",
            "a 1.0-r2 amd64 deb",
            "a 1.0-r1 arm64 deb",
            "a 1.0-r1 amd64 ipk",
        ]
        .map(entry);
        assert_eq!(expired(&entries, 2, None), ["a 1.0-r2 (amd64, deb)"]);
        assert_eq!(expired(&entries, 3, None).len(), 0);
    }

    #[test]
    fn the_newest_version_of_a_package_has_no_age() {
        let mut entries = ["a 1 amd64 deb", "a 2 amd64 deb", "b 1 amd64 deb"].map(entry);
        assert_eq!(expired(&entries, 9, Some(100)), ["a 1 (amd64, deb)"]);
        entries[0].added = Timestamp::from_second(3600).unwrap();
        assert_eq!(expired(&entries, 9, Some(100)).len(), 0);
    }
}
