//! Thinks: which builds and sources go. Touches nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use config::BuildId;
use config::settings::Records as Limits;
use config::task::Digest;
use jiff::Timestamp;

/// How long a source that no build names is kept for one that may come.
pub(super) const SOURCE_GRACE: Duration = Duration::from_hours(24);

/// A build with an outcome.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    /// Its number.
    pub(super) id: BuildId,
    /// When its outcome was recorded.
    pub(super) finished: Timestamp,
    /// The sources that it was made from.
    pub(super) sources: BTreeSet<Digest>,
    /// What its directory takes.
    pub(super) bytes: u64,
    /// Whether its guest or its snapshot waits for a person.
    pub(super) held: bool,
}

/// A source that is there.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// What it takes.
    pub(super) bytes: u64,
    /// How long ago it was handed in, at the last.
    pub(super) age: Duration,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    /// The builds with an outcome.
    pub(super) ended: Vec<Ended>,
    /// Those that one without an outcome waits for.
    pub(super) awaited: BTreeSet<BuildId>,
    /// The sources of schedules, and of builds without an outcome.
    pub(super) wanted: BTreeSet<Digest>,
    /// What the directories of builds without an outcome take.
    pub(super) bytes_unfinished: u64,
    /// The sources that are there.
    pub(super) sources: BTreeMap<Digest, Source>,
    /// Builds whose records are gone, and whose directories are not.
    pub(super) leftovers: BTreeSet<BuildId>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Finish what was begun: the record is gone, the directory is not.
    DropDirectory(BuildId),
    /// Delete a build wholly.
    Remove(BuildId, Why),
    /// Delete a source that no build names.
    DropSource(Digest),
}

/// Why a build goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There are more than records.builds_max.
    Count,
    /// It ended more than records.days_max ago.
    Age,
    /// All together take more than records.mib_max.
    Space,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "there are more builds than records.builds_max",
            Self::Age => "it is older than records.days_max",
            Self::Space => "builds and sources take more than records.mib_max",
        })
    }
}

/// What goes, in order: those that ended first go first. A world in which all of it
/// was done needs nothing more.
pub(super) fn plan(world: &Observed, limits: &Limits, now: Timestamp) -> Vec<Action> {
    let mut steps: Vec<_> = world
        .leftovers
        .iter()
        .map(|id| Action::DropDirectory(*id))
        .collect();
    let mut kept = Kept::new(world);
    let mut oldest: Vec<_> = world.ended.iter().collect();
    oldest.sort_by_key(|build| (build.finished, build.id));
    for build in oldest {
        if build.held || world.awaited.contains(&build.id) {
            continue;
        }
        if let Some(why) = kept.excess(build, limits, now) {
            kept.remove(build);
            steps.push(Action::Remove(build.id, why));
        }
    }
    let unused = world
        .sources
        .iter()
        .filter(|(digest, source)| source.age >= SOURCE_GRACE && !kept.uses.contains_key(digest));
    steps.extend(unused.map(|(digest, _)| Action::DropSource(digest.clone())));
    steps
}

/// What is left while a plan is made.
struct Kept<'w> {
    world: &'w Observed,
    builds: usize,
    bytes: u64,
    /// By how many builds each source is named.
    uses: BTreeMap<&'w Digest, usize>,
}

impl<'w> Kept<'w> {
    fn new(world: &'w Observed) -> Self {
        let mut uses = BTreeMap::new();
        let named = world.ended.iter().flat_map(|build| &build.sources);
        for digest in named.chain(&world.wanted) {
            *uses.entry(digest).or_default() += 1;
        }
        let builds = world.ended.iter().map(|build| build.bytes).sum::<u64>();
        let sources = world
            .sources
            .iter()
            .filter(|(digest, _)| uses.contains_key(digest))
            .map(|(_, source)| source.bytes)
            .sum::<u64>();
        Self {
            world,
            builds: world.ended.len(),
            bytes: world.bytes_unfinished + builds + sources,
            uses,
        }
    }

    fn excess(&self, build: &Ended, limits: &Limits, now: Timestamp) -> Option<Why> {
        let age = Duration::try_from(now.duration_since(build.finished)).unwrap_or_default();
        if limits.builds_max.is_some_and(|max| self.builds > max) {
            Some(Why::Count)
        } else if limits.age_max.is_some_and(|max| age > max) {
            Some(Why::Age)
        } else if limits.bytes_max.is_some_and(|max| self.bytes > max) {
            Some(Why::Space)
        } else {
            None
        }
    }

    fn remove(&mut self, build: &'w Ended) {
        self.builds -= 1;
        self.bytes -= build.bytes;
        for digest in &build.sources {
            let left = self.uses.get(digest).copied().unwrap_or_default();
            if left > 1 {
                self.uses.insert(digest, left - 1);
            } else {
                self.uses.remove(digest);
                let freed = self.world.sources.get(digest).map(|source| source.bytes);
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

    fn ended(id: u64, finished: i64, bytes: u64, sources: &[u8]) -> Ended {
        Ended {
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

    fn world() -> Observed {
        Observed {
            ended: vec![
                ended(1, 30, 10, &[1]),
                ended(2, 10, 10, &[1, 2]),
                ended(3, 20, 10, &[3]),
            ],
            sources: BTreeMap::from([
                (digest(1), source(100, 48)),
                (digest(2), source(100, 48)),
                (digest(3), source(100, 1)),
            ]),
            ..Observed::default()
        }
    }

    fn removed(world: &Observed, limits: &Limits) -> Vec<Action> {
        plan(world, limits, Timestamp::from_second(100).unwrap())
    }

    const NONE: Limits = Limits {
        builds_max: None,
        age_max: None,
        bytes_max: None,
    };

    #[test]
    fn without_limits_only_what_nobody_names_goes() {
        let mut world = world();
        assert_eq!(removed(&world, &NONE), []);
        world.leftovers.insert(BuildId(9));
        world.sources.insert(digest(4), source(1, 24));
        world.sources.insert(digest(5), source(1, 23));
        let steps = [
            Action::DropDirectory(BuildId(9)),
            Action::DropSource(digest(4)),
        ];
        assert_eq!(removed(&world, &NONE), steps);
        world.wanted.insert(digest(4));
        assert_eq!(removed(&world, &NONE), steps[..1]);
    }

    #[test]
    fn what_ended_first_goes_first_with_the_sources_that_only_it_named() {
        let limits = Limits {
            builds_max: Some(2),
            ..NONE
        };
        let steps = [
            Action::Remove(BuildId(2), Why::Count),
            Action::DropSource(digest(2)),
        ];
        assert_eq!(removed(&world(), &limits), steps);
        let limits = Limits {
            age_max: Some(Duration::from_secs(75)),
            ..NONE
        };
        let steps = [
            Action::Remove(BuildId(2), Why::Age),
            Action::Remove(BuildId(3), Why::Age),
            // Source 3 was handed in an hour ago: somebody may be about to name it.
            Action::DropSource(digest(2)),
        ];
        assert_eq!(removed(&world(), &limits), steps);
    }

    #[test]
    fn space_counts_a_source_once_and_as_long_as_it_is_named() {
        let limits = |max| Limits {
            bytes_max: Some(max),
            ..NONE
        };
        assert_eq!(removed(&world(), &limits(330)), []);
        let gone = |max| {
            let steps = removed(&world(), &limits(max));
            let builds = steps.iter().filter(|it| matches!(it, Action::Remove(..)));
            builds.count()
        };
        // Build 2 gives 10 and source 2's 100, build 3 gives 110.
        assert_eq!((gone(329), gone(220), gone(219), gone(109)), (1, 1, 2, 3));
    }

    #[test]
    fn a_build_that_another_one_or_a_person_waits_for_stays_with_its_sources() {
        let limits = Limits {
            builds_max: Some(0),
            age_max: Some(Duration::ZERO),
            bytes_max: Some(0),
        };
        let mut awaited = world();
        awaited.awaited.insert(BuildId(2));
        let mut held = world();
        held.ended[1].held = true;
        for world in [awaited, held] {
            let steps = removed(&world, &limits);
            let removes = |id| {
                let mut steps = steps.iter();
                steps.any(|step| matches!(step, Action::Remove(it, _) if *it == BuildId(id)))
            };
            assert!(removes(1) && !removes(2) && removes(3), "{steps:?}");
            assert!(!steps.contains(&Action::DropSource(digest(1))));
        }
    }

    proptest! {
        #[test]
        fn a_plan_that_was_carried_out_leaves_nothing_to_do(
            builds in prop::collection::vec((0..100i64, 0..50u64, prop::collection::vec(0..6u8, 0..3), any::<bool>()), 0..12),
            sources in prop::collection::btree_map(0..6u8, (0..50u64, 0..48u64), 0..6),
            awaited in prop::collection::btree_set(0..12u64, 0..3),
            limits in (prop::option::of(0..8usize), prop::option::of(0..90u64), prop::option::of(0..300u64)),
        ) {
            let builds = builds.iter().enumerate();
            let mut world = Observed {
                ended: builds.map(|(id, (at, bytes, named, held))| Ended { held: *held, ..ended(id as u64, *at, *bytes, named) }).collect(),
                sources: sources.iter().map(|(it, (bytes, hours))| (digest(*it), source(*bytes, *hours))).collect(),
                awaited: awaited.into_iter().map(BuildId).collect(),
                ..Observed::default()
            };
            let limits = Limits {
                builds_max: limits.0,
                age_max: limits.1.map(Duration::from_secs),
                bytes_max: limits.2,
            };
            for step in removed(&world, &limits) {
                match step {
                    Action::DropDirectory(id) => { world.leftovers.remove(&id); }
                    Action::Remove(id, _) => {
                        prop_assert!(!world.awaited.contains(&id));
                        prop_assert!(world.ended.iter().all(|build| build.id != id || !build.held));
                        world.ended.retain(|build| build.id != id);
                    }
                    Action::DropSource(digest) => {
                        prop_assert!(world.ended.iter().all(|build| !build.sources.contains(&digest)));
                        world.sources.remove(&digest);
                    }
                }
            }
            prop_assert_eq!(removed(&world, &limits), []);
        }
    }
}
