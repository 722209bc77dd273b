//! The copies of sources that coordinators keep: the files of builds, each known by the SHA-256 hash of its
//! content. Pure.
//!
//! A source is safe when two coordinators that are alive have it, or all of them if there are fewer. A
//! submission is acknowledged only then, so that no coordinator takes a source with it when it dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use config::task::{Digest, Source};
use config::text::join_and;
use serde::{Deserialize, Serialize};

use crate::Moment;

/// The coordinators that have a copy before a submission is acknowledged.
const COPIES: usize = 2;
/// The time after the last sign of life of a coordinator for which the store counts on its copies. It
/// delays builds, and nothing depends on it.
pub const SEEN_MS: u64 = 15_000;

/// The name of a coordinator: the address at which hosts and other coordinators reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CoordinatorName(pub String);

impl fmt::Display for CoordinatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The coordinators that have each source.
pub type Copies = BTreeMap<Digest, BTreeSet<CoordinatorName>>;

/// A copy that one coordinator makes for another one, or for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copying {
    /// The source.
    pub digest: Digest,
    /// A coordinator that has it.
    pub from: CoordinatorName,
    /// A coordinator that lacks it.
    pub to: CoordinatorName,
}

/// The coordinators that keep sources, as one of them sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keepers {
    /// This coordinator.
    pub own: Option<CoordinatorName>,
    /// Those that are alive, this one among them if it keeps sources.
    pub alive: BTreeSet<CoordinatorName>,
}

/// The next step towards enough copies of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// There are enough.
    Enough,
    /// One more is made.
    Copy(Copying),
    /// No coordinator that is alive has it: its client uploads it.
    Missing,
    /// No further coordinator could take it.
    Failed,
}

/// Returns the next step towards enough copies of a source. `failed` are the copies that could not be made.
pub fn next(
    digest: &Digest,
    copies: &Copies,
    keepers: &Keepers,
    failed: &BTreeSet<Copying>,
) -> Next {
    let none = BTreeSet::new();
    let holders = copies.get(digest).unwrap_or(&none);
    let (has, lacks): (Vec<_>, Vec<_>) = keepers.alive.iter().partition(|it| holders.contains(*it));
    if has.is_empty() {
        return Next::Missing;
    }
    if has.len() >= COPIES || lacks.is_empty() {
        return Next::Enough;
    }
    // Without a connection to another one, if that is possible.
    let own_first = |it: &&&CoordinatorName| keepers.own.as_ref() != Some(**it);
    let (mut has, mut lacks) = (has, lacks);
    has.sort_by_key(|it| own_first(&it));
    lacks.sort_by_key(|it| own_first(&it));
    let pairs = lacks
        .iter()
        .flat_map(|to| has.iter().map(move |from| (from, to)));
    let mut copyings = pairs.map(|(from, to)| Copying {
        digest: digest.clone(),
        from: (**from).clone(),
        to: (**to).clone(),
    });
    let copying = copyings.find(|it| !failed.contains(it));
    copying.map_or(Next::Failed, Next::Copy)
}

/// Returns the reason for which a build waits for its sources: no coordinator that is alive has them.
pub fn lost(
    sources: &[Source],
    copies: &Copies,
    alive: &BTreeSet<CoordinatorName>,
) -> Option<String> {
    let is_lost = |it: &&Source| {
        let holders = copies.get(&it.sha256);
        holders.is_none_or(|holders| holders.is_disjoint(alive))
    };
    let lost: Vec<_> = sources.iter().filter(is_lost).collect();
    if lost.is_empty() {
        return None;
    }
    let names: Vec<_> = lost.iter().map(|it| it.name.to_string()).collect();
    let holders = lost.iter().filter_map(|it| copies.get(&it.sha256));
    let away: BTreeSet<_> = holders.flatten().map(ToString::to_string).collect();
    let (noun, are) = match lost.len() {
        1 => ("source", "is"),
        _ => ("sources", "are"),
    };
    let names = join_and(&names);
    let remedy = "submitting the same files again uploads them again";
    Some(if away.is_empty() {
        format!("its {noun} {names} {are} on no coordinator any more; {remedy}")
    } else {
        let away = join_and(&away.into_iter().collect::<Vec<_>>());
        format!("its {noun} {names} {are} only on {away}, which gives no sign of life; {remedy}")
    })
}

/// The last change of each coordinator's beat, on the clock of the one that observes.
#[derive(Debug, Clone, Default)]
pub struct Attendance {
    seen: BTreeMap<CoordinatorName, (u64, Moment)>,
}

impl Attendance {
    /// Notes the beats that were read now.
    pub fn observe(&mut self, now: Moment, beats: &BTreeMap<CoordinatorName, u64>) {
        self.seen.retain(|name, _| beats.contains_key(name));
        for (name, beat) in beats {
            let seen = self.seen.entry(name.clone()).or_insert((*beat, now));
            if seen.0 != *beat {
                *seen = (*beat, now);
            }
        }
    }

    /// Returns the coordinators whose beats have changed within some milliseconds, or are new here.
    pub fn alive(&self, now: Moment, patience_ms: u64) -> BTreeSet<CoordinatorName> {
        let alive =
            |(_, (_, since)): &(&CoordinatorName, &(u64, Moment))| now.since(*since) < patience_ms;
        let alive = self.seen.iter().filter(alive);
        alive.map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> CoordinatorName {
        CoordinatorName(text.to_owned())
    }

    fn names(list: &[&str]) -> BTreeSet<CoordinatorName> {
        list.iter().map(|it| name(it)).collect()
    }

    fn digest() -> Digest {
        "a".repeat(64).parse().unwrap()
    }

    fn step(own: &str, alive: &[&str], holders: &[&str], failed: &[(&str, &str)]) -> Next {
        let keepers = Keepers {
            own: Some(name(own)),
            alive: names(alive),
        };
        let copies = [(digest(), names(holders))].into();
        let failed = failed.iter().map(|(from, to)| copying(from, to));
        next(&digest(), &copies, &keepers, &failed.collect())
    }

    fn copying(from: &str, to: &str) -> Copying {
        Copying {
            digest: digest(),
            from: name(from),
            to: name(to),
        }
    }

    #[test]
    fn a_second_coordinator_that_is_alive_gets_a_copy() {
        let copy = |from, to| Next::Copy(copying(from, to));
        assert_eq!(step("a", &["a", "b"], &["a"], &[]), copy("a", "b"));
        assert_eq!(step("a", &["a", "b", "c"], &["b"], &[]), copy("b", "a"));
        assert_eq!(step("z", &["b", "c"], &["c"], &[]), copy("c", "b"));
        assert_eq!(step("a", &["a", "b", "c"], &["a", "c"], &[]), Next::Enough);
        assert_eq!(step("a", &["a"], &["a"], &[]), Next::Enough);
        // The copy of one that is dead does not count.
        assert_eq!(step("a", &["a", "b"], &["a", "c"], &[]), copy("a", "b"));
        assert_eq!(step("a", &["a"], &["a", "c"], &[]), Next::Enough);
    }

    #[test]
    fn a_source_that_only_the_dead_have_is_uploaded_again() {
        assert_eq!(step("a", &["a", "b"], &[], &[]), Next::Missing);
        assert_eq!(step("a", &["a", "b"], &["c"], &[]), Next::Missing);
    }

    #[test]
    fn another_coordinator_is_tried_after_a_failure() {
        let failed = [("a", "b")];
        let next = step("a", &["a", "b", "c"], &["a"], &failed);
        assert_eq!(next, Next::Copy(copying("a", "c")));
        assert_eq!(step("a", &["a", "b"], &["a"], &failed), Next::Failed);
    }

    #[test]
    fn a_build_says_which_source_is_lost() {
        let source = |name: &str, digit: &str| Source {
            name: name.parse().unwrap(),
            sha256: digit.repeat(64).parse().unwrap(),
        };
        let sources = [source("a.tar", "a"), source("b.tar", "b")];
        let copies = |holders: &[&str]| -> Copies {
            [
                (sources[0].sha256.clone(), names(&["http://c"])),
                (sources[1].sha256.clone(), names(holders)),
            ]
            .into()
        };
        let why = |holders: &[&str]| lost(&sources, &copies(holders), &names(&["http://c"]));
        assert_eq!(why(&["http://c"]), None);
        assert_eq!(
            why(&[]).unwrap(),
            "its source b.tar is on no coordinator any more; submitting the same files again uploads them again"
        );
        assert_eq!(
            why(&["http://d"]).unwrap(),
            "its source b.tar is only on http://d, which gives no sign of life; \
             submitting the same files again uploads them again"
        );
        let both = lost(&sources, &Copies::new(), &names(&["http://c"])).unwrap();
        assert!(both.starts_with("its sources a.tar and b.tar are on no coordinator"));
    }

    #[test]
    fn a_coordinator_without_a_beat_is_dead_after_its_time() {
        let mut attendance = Attendance::default();
        let beats = |a, b| [(name("a"), a), (name("b"), b)].into();
        attendance.observe(Moment(1_000), &beats(1, 7));
        assert_eq!(attendance.alive(Moment(1_099), 100), names(&["a", "b"]));
        attendance.observe(Moment(1_099), &beats(2, 7));
        assert_eq!(attendance.alive(Moment(1_100), 100), names(&["a"]));
        attendance.observe(Moment(1_150), &[(name("b"), 8)].into());
        assert_eq!(attendance.alive(Moment(1_150), 100), names(&["b"]));
    }
}
