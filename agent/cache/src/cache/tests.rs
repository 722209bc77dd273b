use std::collections::BTreeMap;
use std::io::Write;

use config::BuildId;
use config::builds::Submitter;
use config::cache::{Deleted, EntryFilter, PruneRequest};
use config::settings::Settings;

use super::publish::plan;
use super::*;
use crate::journal::Content;
use crate::staging::Staging;

struct Place {
    directory: tempfile::TempDir,
    bytes_max: u64,
}

impl Place {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            bytes_max: 1000,
        }
    }

    /// Opens the cache as a new agent does.
    fn cache(&self) -> Cache {
        let text = "[[caches]]\nname = \"one\"\nwriters = [\"alice\"]\n";
        let mut rules = Settings::parse(text).unwrap().caches.remove(0);
        rules.bytes_max = self.bytes_max;
        let directory = self.directory.path().join("one");
        Cache::open(directory, rules, 0, &Arc::default()).unwrap()
    }

    /// Returns the names and the contents of all content files.
    fn contents(&self) -> Vec<String> {
        let top = self.directory.path().join("one").join(CONTENTS);
        let mut contents = Vec::new();
        for directory in sys::file::entries(&top).unwrap() {
            for file in sys::file::entries(&directory).unwrap() {
                contents.push(fs::read_to_string(file).unwrap());
            }
        }
        contents.sort();
        contents
    }
}

fn build(id: u64) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, task) = ("default".parse().unwrap(), "0".repeat(64).parse().unwrap());
    let submitter: Submitter = "alice".parse().unwrap();
    Build::new(BuildId(id), request, toolchain, task, submitter, at(0))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn path(text: &str) -> CachePath {
    text.parse().unwrap()
}

fn put(staging: &Arc<Staging>, path: &str, text: &str) {
    let (mut space, mut file) = staging.begin().unwrap();
    space.grow(text.len() as u64).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let content = Content {
        hash: blake3::hash(text.as_bytes()).into(),
        bytes: text.len() as u64,
    };
    staging
        .commit(space, file, path.parse().unwrap(), content)
        .unwrap();
}

fn publish(cache: &Cache, id: u64, entries: &[(&str, &str)], second: i64) -> Published {
    let staging = cache.stage(BuildId(id), false).unwrap();
    for (path, text) in entries {
        put(&staging, path, text);
    }
    let published = cache.publish(&staging, at(second)).unwrap();
    staging.remove().unwrap();
    published
}

fn read(cache: &Cache, text: &str, second: i64) -> Option<String> {
    let found = cache.find(&path(text), true, at(second)).unwrap()?;
    Some(fs::read_to_string(found.file).unwrap())
}

fn entries(cache: &Cache) -> Vec<String> {
    let content = cache.list(&EntryQuery::default()).unwrap();
    content
        .entries
        .into_iter()
        .map(|entry| entry.path.into())
        .collect()
}

const ENTRIES: [(&str, &str); 4] = [
    ("downloads/new", "new"),
    ("objects/replaced", "second"),
    ("objects/twin-a", "twin"),
    ("objects/twin-b", "twin"),
];

/// An agent that is killed before any step of a publication leaves all entries of the build or none,
/// and the next one completes it, with nothing left over.
#[test]
fn a_publication_that_is_interrupted_at_any_step_is_completed_or_leaves_nothing() {
    for repeated in [true, false] {
        for steps_done in 0.. {
            let place = Place::new();
            let before = place.cache();
            publish(&before, 1, &[("objects/replaced", "first")], 1);
            let staging = before.stage(BuildId(2), false).unwrap();
            for (path, text) in ENTRIES {
                put(&staging, path, text);
            }
            let (changes, steps, _) = before.plan_publication(&staging).unwrap();
            for step in steps.iter().take(steps_done) {
                before.run(&staging, step, at(2)).unwrap();
            }
            drop(changes);
            drop((before, staging));

            let cache = place.cache();
            let is_committed = entries(&cache).len() == ENTRIES.len();
            assert!(is_committed || entries(&cache) == ["objects/replaced"]);
            let replaced = if is_committed { "second" } else { "first" };
            assert_eq!(read(&cache, "objects/replaced", 3).unwrap(), replaced);
            let settled = cache.settle(&build(2), repeated).unwrap();
            assert_eq!(settled.is_some(), repeated);
            cache.housekeep().unwrap();
            if repeated || is_committed {
                for (path, text) in ENTRIES {
                    assert_eq!(read(&cache, path, 3).as_deref(), Some(text));
                }
                assert_eq!(place.contents(), ["new", "second", "twin"]);
            } else {
                assert_eq!(place.contents(), ["first"], "after {steps_done} steps");
            }
            let stagings = place.directory.path().join("one").join(STAGING);
            assert_eq!(stagings.read_dir().unwrap().count(), 0);
            if steps_done > steps.len() {
                assert!(is_committed);
                break;
            }
        }
    }
}

#[test]
fn a_plan_moves_each_content_once_and_commits_after_the_disk_has_them() {
    let content = |text: &str| Content {
        hash: blake3::hash(text.as_bytes()).into(),
        bytes: text.len() as u64,
    };
    let staged = ENTRIES.map(|(name, text)| (path(name), content(text)));
    let known = [
        (path("downloads/new"), content("old").hash),
        (path("objects/twin-a"), content("twin").hash),
        (path("objects/replaced"), content("first").hash),
    ];
    let (steps, published) = plan(staged.into(), &known.into());
    let kinds: Vec<_> = steps.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds[0], kinds[1], "two contents are moved");
    assert_eq!(steps.len(), 5);
    let expected = Published {
        entries: 2,
        conflicts: 1,
    };
    assert_eq!(published, expected);
    let (steps, published) = plan(BTreeMap::default(), &BTreeMap::default());
    assert_eq!((steps, published), (Vec::new(), Published::default()));
}

#[test]
fn the_entries_that_were_not_used_for_the_longest_time_make_room() {
    let mut place = Place::new();
    place.bytes_max = 10;
    let cache = place.cache();
    publish(
        &cache,
        1,
        &[("objects/a", "aaaa"), ("objects/b", "bbbb")],
        1,
    );
    assert!(read(&cache, "objects/a", 5).is_some());
    publish(&cache, 2, &[("objects/c", "cccc")], 3);
    assert_eq!(entries(&cache), ["objects/a", "objects/c"]);
    assert_eq!(place.contents(), ["aaaa", "cccc"]);
    // The use is known to the next agent.
    drop(cache);
    let cache = place.cache();
    let request = PruneRequest {
        bytes_max: Some(4),
        dry_run: true,
    };
    let expected = Deleted {
        entries: 1,
        bytes: 4,
    };
    assert_eq!(cache.prune(request).unwrap(), expected);
    assert_eq!(entries(&cache).len(), 2);
    let request = PruneRequest {
        dry_run: false,
        ..request
    };
    assert_eq!(cache.prune(request).unwrap(), expected);
    assert_eq!(entries(&cache), ["objects/a"]);
    // A cache that was made smaller is pruned in the next round.
    drop(cache);
    place.bytes_max = 3;
    let cache = place.cache();
    cache.housekeep().unwrap();
    assert_eq!(entries(&cache), [""; 0]);
    assert_eq!(place.contents(), [""; 0]);
}

#[test]
fn a_damaged_content_is_never_read_and_is_deleted_with_its_entries() {
    for damage in ["other", "12345", ""] {
        let place = Place::new();
        let cache = place.cache();
        let twins = [("objects/a", "abcde"), ("objects/b", "abcde")];
        publish(&cache, 1, &twins, 1);
        let file = cache.find(&path("objects/a"), false, at(1)).unwrap();
        let file = file.unwrap().file;
        drop(cache);
        if damage.is_empty() {
            fs::remove_file(&file).unwrap();
        } else {
            sys::file::replace(&file, damage.as_bytes()).unwrap();
        }
        let cache = place.cache();
        assert_eq!(read(&cache, "objects/a", 2), None, "{damage}");
        assert_eq!(read(&cache, "objects/b", 2), None);
        assert_eq!(entries(&cache), [""; 0]);
        assert!(!file.exists());
        // It can be published again.
        publish(&cache, 2, &twins, 3);
        assert_eq!(read(&cache, "objects/a", 4).as_deref(), Some("abcde"));
    }
}

#[test]
fn the_entries_of_a_build_can_be_deleted() {
    let place = Place::new();
    let cache = place.cache();
    publish(&cache, 1, &[("objects/a", "a"), ("downloads/a", "a")], 1);
    publish(&cache, 2, &[("objects/b", "b")], 2);
    let filter = |prefix: &str, build: Option<u64>, dry_run| EntryFilter {
        prefix: prefix.to_owned(),
        build: build.map(BuildId),
        dry_run,
    };
    let delete = |filter| cache.delete(&filter).unwrap().entries;
    assert_eq!(delete(filter("objects/", Some(1), true)), 1);
    assert_eq!(delete(filter("objects/", Some(1), false)), 1);
    assert_eq!(entries(&cache), ["downloads/a", "objects/b"]);
    // Another entry has the same content.
    assert_eq!(place.contents(), ["a", "b"]);
    assert_eq!(delete(filter("", Some(1), false)), 1);
    assert_eq!(delete(filter("", None, false)), 1);
    assert_eq!(place.contents(), [""; 0]);
}

#[test]
fn entries_are_listed_in_pages() {
    let place = Place::new();
    let cache = place.cache();
    let all = [("objects/a", "1"), ("objects/b", "2"), ("objects/c", "3")];
    publish(&cache, 7, &all, 5);
    let page = |after: &str| {
        let query = EntryQuery {
            prefix: "objects/".to_owned(),
            after: after.to_owned(),
            limit: Some(2),
        };
        cache.list(&query).unwrap()
    };
    let first = page("");
    assert_eq!(first.entries.len(), 2);
    assert_eq!((first.cache.entries, first.cache.bytes), (3, 3));
    assert_eq!(first.entries[0].build, BuildId(7));
    let second = page(first.next.unwrap().as_str());
    assert_eq!((second.entries.len(), second.next), (1, None));
}

#[test]
fn what_builds_without_a_guest_have_put_is_removed_and_other_entries_stay() {
    let place = Place::new();
    let cache = place.cache();
    for id in [1, 2] {
        put(&cache.stage(BuildId(id), false).unwrap(), "objects/a", "a");
    }
    let stagings = place.directory.path().join("one").join(STAGING);
    fs::create_dir(stagings.join("notes")).unwrap();
    drop(cache);
    place.cache().drop_orphans(&BTreeSet::from([BuildId(2)]));
    let left = sys::file::entries(&stagings).unwrap();
    assert_eq!(left, [stagings.join("2"), stagings.join("notes")]);
    let other = place.directory.path().join("one").join(CONTENTS).join("ab");
    fs::create_dir(&other).unwrap();
    sys::file::replace(&other.join("notes"), b"mine").unwrap();
    place.cache().housekeep().unwrap();
    assert_eq!(place.contents(), ["mine"]);
}
