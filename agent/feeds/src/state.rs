//! The state of a repository: its packages, and the next one; pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::BuildId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::index::Entry;
use crate::package::PackageId;
use crate::retention::Retention;

/// The format of the file.
pub const FORMAT: u32 = 1;
/// The time for which files stay that the indexes no longer name: that of a slow client.
pub const GRACE: Duration = Duration::from_hours(1);
/// The largest number of generations whose indexes stay.
const RETIRED_GENERATIONS_MAX: u64 = 100;
/// The largest number of refused packages that are remembered.
const REFUSED_MAX: usize = 100;

/// The state of a repository. It is a file in the directory of its generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The format: [`FORMAT`].
    pub format: u32,
    /// The number of the generation.
    pub generation: u64,
    /// The time at which it was published.
    pub published: Timestamp,
    /// The time of change of its files. Each generation has a later second, because clients compare seconds.
    pub changed: Timestamp,
    /// The fingerprints of the keys that signed it.
    pub keys: Vec<String>,
    /// The packages, sorted by identity.
    pub entries: Vec<Entry>,
    /// The packages that are no longer named, with the paths of their files and the time of that.
    #[serde(default)]
    pub retired_packages: BTreeMap<String, Timestamp>,
    /// The indexes by hash that are no longer current, by their paths below the suite, with the generation
    /// and the time that ended them.
    #[serde(default)]
    pub retired_indexes: BTreeMap<String, (u64, Timestamp)>,
    /// The packages that were refused last, the newest one last.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// A package that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The file, as its build named it.
    pub file: String,
    /// The build.
    pub build: Option<BuildId>,
    /// The reason, as a sentence.
    pub reason: String,
    /// The time.
    pub at: Timestamp,
}

impl State {
    /// Returns the state of an empty repository, which is not published.
    pub fn new(now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            generation: 0,
            published: now,
            changed: Timestamp::UNIX_EPOCH,
            keys: Vec::new(),
            entries: Vec::new(),
            retired_packages: BTreeMap::new(),
            retired_indexes: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    /// Begins the next generation.
    pub fn advance(&mut self, keys: Vec<String>, now: Timestamp) {
        let second = Duration::from_secs(1);
        let later = self.changed.saturating_add(second).unwrap_or(now);
        self.generation += 1;
        self.published = now;
        self.changed = later.max(now);
        self.keys = keys;
        self.forget_packages(now);
    }

    /// Adds a package. Returns the reason if there is one with its identity and other content.
    ///
    /// # Errors
    /// The package is refused.
    pub fn add(&mut self, entry: Entry) -> Result<bool, String> {
        match self.entries.binary_search_by(|it| it.id.cmp(&entry.id)) {
            Ok(place) if self.entries[place].sha256 == entry.sha256 => Ok(false),
            Ok(place) => Err(other_content(&self.entries[place])),
            Err(place) => {
                self.retired_packages.remove(&entry.path());
                self.entries.insert(place, entry);
                Ok(true)
            }
        }
    }

    /// Remembers a package that was refused.
    pub fn refuse(&mut self, refused: Refused) {
        // A repetition of the same fault takes no place of others.
        self.refused
            .retain(|it| (&it.file, &it.reason) != (&refused.file, &refused.reason));
        self.refused.push(refused);
        let surplus = self.refused.len().saturating_sub(REFUSED_MAX);
        self.refused.drain(..surplus);
    }

    /// Removes packages, whose files stay for a while.
    pub fn retire(&mut self, packages: &BTreeSet<PackageId>, now: Timestamp) {
        let (gone, kept) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| packages.contains(&entry.id));
        let gone: Vec<Entry> = gone;
        self.entries = kept;
        self.retired_packages
            .extend(gone.iter().map(|entry| (entry.path(), now)));
    }

    /// Removes the packages that the limits do not keep. Returns their number.
    pub fn apply(&mut self, retention: &Retention, now: Timestamp) -> usize {
        let expired = retention.expired(&self.entries, now);
        self.retire(&expired, now);
        expired.len()
    }

    /// Replaces the names of indexes by hash: `before` are those that this state had. Returns the older
    /// ones that stay.
    pub fn retire_indexes(
        &mut self,
        before: &BTreeSet<String>,
        current: &BTreeSet<String>,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let generation = self.generation;
        for path in before {
            let ended = (generation, now);
            self.retired_indexes.entry(path.clone()).or_insert(ended);
        }
        self.retired_indexes.retain(|path, (ended, since)| {
            !current.contains(path)
                && generation.saturating_sub(*ended) < RETIRED_GENERATIONS_MAX
                && !is_over(*since, now)
        });
        self.retired_indexes.keys().cloned().collect()
    }

    /// Forgets the files of packages that need not stay any longer.
    pub fn forget_packages(&mut self, now: Timestamp) {
        self.retired_packages
            .retain(|_, since| !is_over(*since, now));
    }

    /// Returns the paths of all files of packages that stay.
    pub fn files(&self) -> BTreeSet<String> {
        let named = self.entries.iter().map(Entry::path);
        named.chain(self.retired_packages.keys().cloned()).collect()
    }
}

/// Returns true after the grace. A clock that was set back ends it as well, so that nothing stays for ever.
fn is_over(since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).map_or(true, |age| age >= GRACE)
}

fn other_content(there: &Entry) -> String {
    let id = &there.id;
    let by = match there.build {
        Some(build) => format!("build {build}"),
        None => "an earlier build".to_owned(),
    };
    format!(
        "the feed has {id} of {by} with other content, and clients that have it would not get this one; \
         its version must change with its content, for example by a revision of the PR service"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::entry;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    #[test]
    fn a_version_never_gets_other_content() {
        let mut state = State::new(at(0));
        let first = entry("a 1.0 amd64 deb");
        assert_eq!(state.add(first.clone()), Ok(true));
        assert_eq!(state.add(first.clone()), Ok(false));
        let other = Entry {
            sha256: sys::file::digest_of(b"other"),
            ..first.clone()
        };
        let reason = state.add(other).unwrap_err();
        assert!(reason.contains("its version must change"), "{reason}");
        assert_eq!(state.entries, [first]);
    }

    #[test]
    fn files_stay_for_a_while_after_no_index_names_them() {
        let mut state = State::new(at(0));
        let old = entry("a 1.0 amd64 deb");
        state.add(old.clone()).unwrap();
        state.retire(&BTreeSet::from([old.id.clone()]), at(10));
        state.forget_packages(at(69));
        assert!(state.files().contains(&old.path()));
        state.forget_packages(at(70));
        assert!(state.files().is_empty());
        state.retired_packages.insert(old.path(), at(70));
        state.add(old.clone()).unwrap();
        state.forget_packages(at(1000));
        assert!(state.files().contains(&old.path()), "it is named again");
    }

    #[test]
    fn indexes_stay_by_hash_for_a_while_and_never_too_many() {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let mut state = State::new(at(0));
        state.generation = 1;
        assert_eq!(
            state.retire_indexes(&set(&["a"]), &set(&["b"]), at(1)),
            set(&["a"])
        );
        assert_eq!(
            state.retire_indexes(&set(&["b"]), &set(&["c"]), at(60)),
            set(&["a", "b"])
        );
        assert_eq!(
            state.retire_indexes(&set(&["c"]), &set(&["b"]), at(61)),
            set(&["c"])
        );
        state.generation = 101;
        assert_eq!(
            state.retire_indexes(&set(&["b"]), &set(&["d"]), at(62)),
            set(&["b"])
        );
    }
}
