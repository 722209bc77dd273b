//! The retention plan: the builds and sources to delete. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use config::BuildId;
use config::settings::Records as Limits;
use config::task::Digest;
use jiff::Timestamp;

/// The time for which a source that no build names is kept: its build may follow.
pub(super) const SOURCE_GRACE: Duration = Duration::from_hours(24);

/// A build with an outcome.
#[derive(Debug, Clone)]
pub(super) struct FinishedBuild {
    /// Its number.
    pub(super) id: BuildId,
    /// The time at which its outcome was recorded.
    pub(super) finished: Timestamp,
    /// Its sources.
    pub(super) sources: BTreeSet<Digest>,
    /// The size of its directory.
    pub(super) bytes: u64,
    /// True if it is held.
    pub(super) held: bool,
}

/// An uploaded source.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Its size.
    pub(super) bytes: u64,
    /// The time since it was last uploaded.
    pub(super) age: Duration,
}

/// The facts that the plan depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// The builds with an outcome.
    pub(super) finished: Vec<FinishedBuild>,
    /// The builds that an unfinished build depends on.
    pub(super) awaited: BTreeSet<BuildId>,
    /// The sources of schedules, and of builds without an outcome.
    pub(super) used: BTreeSet<Digest>,
    /// The size of the directories of builds without an outcome.
    pub(super) bytes_unfinished: u64,
    /// The uploaded sources.
    pub(super) sources: BTreeMap<Digest, Source>,
    /// The deleted builds whose directories must still be deleted.
    pub(super) pending: BTreeSet<BuildId>,
}

/// Something to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Removal {
    /// The directory of a build whose record is deleted.
    Directory(BuildId),
    /// A build.
    Build(BuildId, Reason),
    /// A source that no build names.
    Source(Digest),
}

/// The limit for which a build is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// `records.builds_max`.
    Count,
    /// `records.days_max`.
    Age,
    /// `records.mib_max`.
    Space,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "there are more builds than records.builds_max",
            Self::Age => "it is older than records.days_max",
            Self::Space => "builds and sources take more than records.mib_max",
        })
    }
}

/// Returns the deletions in order, oldest builds first. After all of them a second plan is
/// empty.
pub(super) fn plan(observed: &Observed, limits: &Limits, now: Timestamp) -> Vec<Removal> {
    let mut removals: Vec<_> = observed
        .pending
        .iter()
        .map(|id| Removal::Directory(*id))
        .collect();
    let mut remaining = Remaining::new(observed);
    let mut oldest: Vec<_> = observed.finished.iter().collect();
    oldest.sort_by_key(|build| (build.finished, build.id));
    for build in oldest {
        if build.held || observed.awaited.contains(&build.id) {
            continue;
        }
        if let Some(reason) = remaining.exceeded(build, limits, now) {
            remaining.remove(build);
            removals.push(Removal::Build(build.id, reason));
        }
    }
    let unused = observed.sources.iter().filter(|(digest, source)| {
        source.age >= SOURCE_GRACE && !remaining.uses.contains_key(digest)
    });
    removals.extend(unused.map(|(digest, _)| Removal::Source(digest.clone())));
    removals
}

/// The builds and sources that remain after the planned deletions.
struct Remaining<'w> {
    observed: &'w Observed,
    builds: usize,
    bytes: u64,
    /// The number of builds and schedules that name each source.
    uses: BTreeMap<&'w Digest, usize>,
}

impl<'w> Remaining<'w> {
    fn new(observed: &'w Observed) -> Self {
        let mut uses = BTreeMap::new();
        let named = observed.finished.iter().flat_map(|build| &build.sources);
        for digest in named.chain(&observed.used) {
            *uses.entry(digest).or_default() += 1;
        }
        let builds = observed
            .finished
            .iter()
            .map(|build| build.bytes)
            .sum::<u64>();
        let sources = observed
            .sources
            .iter()
            .filter(|(digest, _)| uses.contains_key(digest))
            .map(|(_, source)| source.bytes)
            .sum::<u64>();
        Self {
            observed,
            builds: observed.finished.len(),
            bytes: observed.bytes_unfinished + builds + sources,
            uses,
        }
    }

    /// Returns the limit that requires the deletion of this build.
    fn exceeded(&self, build: &FinishedBuild, limits: &Limits, now: Timestamp) -> Option<Reason> {
        let age = Duration::try_from(now.duration_since(build.finished)).unwrap_or_default();
        if limits.builds_max.is_some_and(|max| self.builds > max) {
            Some(Reason::Count)
        } else if limits.age_max.is_some_and(|max| age > max) {
            Some(Reason::Age)
        } else if limits.bytes_max.is_some_and(|max| self.bytes > max) {
            Some(Reason::Space)
        } else {
            None
        }
    }

    fn remove(&mut self, build: &'w FinishedBuild) {
        self.builds -= 1;
        self.bytes -= build.bytes;
        for digest in &build.sources {
            let left = self.uses.get(digest).copied().unwrap_or_default();
            if left > 1 {
                self.uses.insert(digest, left - 1);
            } else {
                self.uses.remove(digest);
                let freed = self.observed.sources.get(digest).map(|source| source.bytes);
                self.bytes -= freed.unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from([number; 32])
    }

    fn build(id: u64, finished: i64, bytes: u64, sources: &[u8]) -> FinishedBuild {
        FinishedBuild {
            id: BuildId(id),
            finished: Timestamp::from_second(finished).unwrap(),
            sources: sources.iter().map(|number| digest(*number)).collect(),
            bytes,
            held: false,
        }
    }

    fn source(bytes: u64, hours: u64) -> Source {
        Source {
            bytes,
            age: Duration::from_hours(hours),
        }
    }

    fn observed() -> Observed {
        Observed {
            finished: vec![
                build(1, 30, 10, &[1]),
                build(2, 10, 10, &[1, 2]),
                build(3, 20, 10, &[3]),
            ],
            sources: BTreeMap::from([
                (digest(1), source(100, 48)),
                (digest(2), source(100, 48)),
                (digest(3), source(100, 1)),
            ]),
            ..Observed::default()
        }
    }

    fn removals(observed: &Observed, limits: &Limits) -> Vec<Removal> {
        plan(observed, limits, Timestamp::from_second(100).unwrap())
    }

    const NONE: Limits = Limits {
        builds_max: None,
        age_max: None,
        bytes_max: None,
    };

    #[test]
    fn without_limits_only_unused_files_are_deleted() {
        let mut observed = observed();
        assert_eq!(removals(&observed, &NONE), []);
        observed.pending.insert(BuildId(9));
        observed.sources.insert(digest(4), source(1, 24));
        observed.sources.insert(digest(5), source(1, 23));
        let expected = [Removal::Directory(BuildId(9)), Removal::Source(digest(4))];
        assert_eq!(removals(&observed, &NONE), expected);
        observed.used.insert(digest(4));
        assert_eq!(removals(&observed, &NONE), expected[..1]);
    }

    #[test]
    fn the_oldest_builds_are_deleted_first_with_their_own_sources() {
        let limits = Limits {
            builds_max: Some(2),
            ..NONE
        };
        let expected = [
            Removal::Build(BuildId(2), Reason::Count),
            Removal::Source(digest(2)),
        ];
        assert_eq!(removals(&observed(), &limits), expected);
        let limits = Limits {
            age_max: Some(Duration::from_secs(75)),
            ..NONE
        };
        let expected = [
            Removal::Build(BuildId(2), Reason::Age),
            Removal::Build(BuildId(3), Reason::Age),
            // Source 3 was uploaded an hour ago; its build may follow.
            Removal::Source(digest(2)),
        ];
        assert_eq!(removals(&observed(), &limits), expected);
    }

    #[test]
    fn a_source_counts_once_while_it_is_named() {
        let limits = |max| Limits {
            bytes_max: Some(max),
            ..NONE
        };
        assert_eq!(removals(&observed(), &limits(330)), []);
        let deleted = |max| {
            let removals = removals(&observed(), &limits(max));
            let builds = removals
                .iter()
                .filter(|it| matches!(it, Removal::Build(..)));
            builds.count()
        };
        // Build 2 gives 10 and source 2's 100, build 3 gives 110.
        assert_eq!(
            (deleted(329), deleted(220), deleted(219), deleted(109)),
            (1, 1, 2, 3)
        );
    }

    #[test]
    fn a_held_or_awaited_build_stays_with_its_sources() {
        let limits = Limits {
            builds_max: Some(0),
            age_max: Some(Duration::ZERO),
            bytes_max: Some(0),
        };
        let mut awaited = observed();
        awaited.awaited.insert(BuildId(2));
        let mut held = observed();
        held.finished[1].held = true;
        for observed in [awaited, held] {
            let removals = removals(&observed, &limits);
            let deletes = |id| {
                let mut removals = removals.iter();
                removals.any(|it| matches!(it, Removal::Build(build, _) if *build == BuildId(id)))
            };
            assert!(deletes(1) && !deletes(2) && deletes(3), "{removals:?}");
            assert!(!removals.contains(&Removal::Source(digest(1))));
        }
    }

    proptest! {
        #[test]
        fn after_its_removals_the_plan_is_empty(
            builds in prop::collection::vec((0..100i64, 0..50u64, prop::collection::vec(0..6u8, 0..3), any::<bool>()), 0..12),
            sources in prop::collection::btree_map(0..6u8, (0..50u64, 0..48u64), 0..6),
            awaited in prop::collection::btree_set(0..12u64, 0..3),
            limits in (prop::option::of(0..8usize), prop::option::of(0..90u64), prop::option::of(0..300u64)),
        ) {
            let builds = builds.iter().enumerate();
            let mut observed = Observed {
                finished: builds.map(|(id, (at, bytes, named, held))| FinishedBuild { held: *held, ..build(id as u64, *at, *bytes, named) }).collect(),
                sources: sources.iter().map(|(it, (bytes, hours))| (digest(*it), source(*bytes, *hours))).collect(),
                awaited: awaited.into_iter().map(BuildId).collect(),
                ..Observed::default()
            };
            let limits = Limits {
                builds_max: limits.0,
                age_max: limits.1.map(Duration::from_secs),
                bytes_max: limits.2,
            };
            for removal in removals(&observed, &limits) {
                match removal {
                    Removal::Directory(id) => { observed.pending.remove(&id); }
                    Removal::Build(id, _) => {
                        prop_assert!(!observed.awaited.contains(&id));
                        prop_assert!(observed.finished.iter().all(|build| build.id != id || !build.held));
                        observed.finished.retain(|build| build.id != id);
                    }
                    Removal::Source(digest) => {
                        prop_assert!(observed.finished.iter().all(|build| !build.sources.contains(&digest)));
                        observed.sources.remove(&digest);
                    }
                }
            }
            prop_assert_eq!(removals(&observed, &limits), []);
        }
    }
}
