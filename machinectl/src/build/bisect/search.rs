//! The binary search for the first bad one of a list, such as of revisions: pure.

use std::collections::BTreeMap;

/// The next step of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search<T> {
    /// This one must be tried next.
    Try(T),
    /// The search has ended between two neighbors.
    Found {
        /// The newest good one.
        good: T,
        /// The oldest bad one.
        bad: T,
    },
    /// The oldest one is bad, so the first bad one may be older.
    AllBad(T),
}

/// Returns the next step, given the verdicts on those that were tried: true is good. The
/// `candidates` are in order, and the last one is known to be bad.
pub(crate) fn next<T: Copy + Ord>(
    candidates: &[T],
    tried: &BTreeMap<T, bool>,
) -> Option<Search<T>> {
    let (oldest, last) = (candidates.first()?, candidates.len() - 1);
    let is_good = |index: &usize| tried.get(&candidates[*index]) == Some(&true);
    let is_bad = |index: &usize| tried.get(&candidates[*index]) == Some(&false);
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
            good: candidates[good],
            bad: candidates[bad],
        }
    } else {
        Search::Try(candidates[good.midpoint(bad)])
    })
}

#[cfg(test)]
mod tests {
    use config::Revision;
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
        assert_eq!(next::<Revision>(&[], &BTreeMap::new()), None);
    }
}
