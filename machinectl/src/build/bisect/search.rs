//! The binary search for the first bad revision: pure.

use std::collections::BTreeMap;

use config::Revision;

/// The next step of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Search {
    /// This revision must be tried next.
    Try(Revision),
    /// The search has ended between two neighbors.
    Found {
        /// The newest good revision.
        good: Revision,
        /// The oldest bad revision.
        bad: Revision,
    },
    /// The oldest revision is bad, so the first bad one may be older.
    AllBad(Revision),
}

/// Returns the next step, given the verdicts on the revisions that were tried: true is good. The
/// `revisions` are in order, and the last one is known to be bad.
pub(super) fn next(revisions: &[Revision], tried: &BTreeMap<Revision, bool>) -> Option<Search> {
    let (oldest, last) = (revisions.first()?, revisions.len() - 1);
    let is_good = |index: &usize| tried.get(&revisions[*index]) == Some(&true);
    let is_bad = |index: &usize| tried.get(&revisions[*index]) == Some(&false);
    let bad = (0..=last).find(is_bad).unwrap_or(last);
    let Some(good) = (0..bad).rev().find(is_good) else {
        return Some(if bad == 0 {
            Search::AllBad(*oldest)
        } else {
            Search::Try(*oldest)
        });
    };
    Some(if bad - good == 1 {
        Search::Found {
            good: revisions[good],
            bad: revisions[bad],
        }
    } else {
        Search::Try(revisions[good.midpoint(bad)])
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_bad_revision_is_found_in_logarithmic_time(
            numbers in prop::collection::btree_set(1_u32..1000, 1..60),
            first_bad in 0_usize..60,
        ) {
            let revisions: Vec<_> = numbers.into_iter().map(Revision).collect();
            let first_bad = first_bad.min(revisions.len() - 1);
            let mut tried = BTreeMap::new();
            let found = loop {
                match next(&revisions, &tried).unwrap() {
                    Search::Try(revision) => {
                        let index = revisions.binary_search(&revision).unwrap();
                        prop_assert!(tried.insert(revision, index < first_bad).is_none());
                    }
                    found => break found,
                }
            };
            let expected = match first_bad {
                0 => Search::AllBad(revisions[0]),
                bad => Search::Found { good: revisions[bad - 1], bad: revisions[bad] },
            };
            prop_assert_eq!(found, expected);
            prop_assert!(tried.len() <= 2 + revisions.len().ilog2() as usize + 1);
        }
    }

    #[test]
    fn an_empty_list_has_no_next_step() {
        assert_eq!(next(&[], &BTreeMap::new()), None);
    }
}
