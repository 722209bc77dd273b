//! Tests of repositories, with a crash before each change.

use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::*;
use crate::package::tests::{file_of, package};
use crate::signature::tests::new_key;

struct Bench {
    directory: tempfile::TempDir,
    keys: Vec<FeedKey>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let keys = vec![FeedKey::read(&new_key(directory.path(), "key")).unwrap()];
        Self { directory, keys }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("feed")
    }

    fn repository(&self) -> Repository {
        let retention = Retention {
            versions_max: NonZeroUsize::new(2).unwrap(),
            age_max: None,
        };
        Repository::new(&self.root(), "buildhost main/linux".to_owned(), retention)
    }

    fn publish(&self, versions: &[&str], seconds: i64) -> Published {
        let additions = versions
            .iter()
            .map(|version| addition(version, ""))
            .collect();
        self.repository()
            .publish(additions, &self.keys, at(seconds))
            .unwrap()
    }

    fn packages(&self) -> String {
        let path = "dists/stable/main/binary-amd64/Packages";
        sys::trusted::read_text(self.root().join(path)).unwrap_or_default()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_796_000_000 + seconds).unwrap()
}

fn addition(version: &str, content: &str) -> Addition {
    let control = format!("Package: hello\nVersion: {version}\nArchitecture: amd64\n");
    let content = package(&control, &format!("{version}{content}"));
    Addition {
        file: file_of(&content),
        name: "hello.deb".to_owned(),
        kind: PackageKind::Deb,
        sha256: sys::file::digest_of(&content),
        build: Some(BuildId(7)),
    }
}

/// Checks that everything that the current indexes name is there with its hash. Returns the versions.
fn consistent(root: &Path) -> Vec<String> {
    let suite = root.join("dists/stable");
    let Ok(release) = sys::trusted::read_text(suite.join("Release")) else {
        return Vec::new();
    };
    let mut versions = Vec::new();
    let listed = release
        .lines()
        .skip_while(|line| *line != "SHA256:")
        .skip(1);
    for line in listed {
        let [hash, bytes, path] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let content = sys::trusted::read(suite.join(path)).unwrap();
        assert_eq!(sys::file::digest_of(&content).as_str(), hash);
        assert_eq!(content.len().to_string(), bytes);
        let directory = suite.join(path).parent().unwrap().join("by-hash/SHA256");
        assert_eq!(sys::trusted::read(directory.join(hash)).unwrap(), content);
        let Ok(text) = String::from_utf8(content) else {
            continue;
        };
        for paragraph in text.split("\n\n").filter(|it| !it.trim().is_empty()) {
            let package = crate::control::Paragraph::parse(paragraph).unwrap();
            let file = sys::trusted::open(root.join(package.get("Filename").unwrap())).unwrap();
            let hash = sys::file::digest(file).unwrap();
            assert_eq!(hash.as_str(), package.get("SHA256").unwrap());
            versions.push(package.get("Version").unwrap().to_owned());
        }
    }
    versions
}

/// Returns the number of packages in the pool.
fn pool(root: &Path) -> usize {
    sweep::packages(root).unwrap().len()
}

#[test]
fn packages_are_published_until_the_limits_remove_them() {
    let bench = Bench::new();
    assert_eq!(bench.publish(&["1.0-r0"], 0).generation, 1);
    assert_eq!(bench.publish(&["1.0-r1"], 1).added.len(), 1);
    assert_eq!(consistent(&bench.root()), ["1.0-r0", "1.0-r1"]);
    let third = bench.publish(&["1.0-r2"], 2);
    assert_eq!((third.generation, third.expired), (3, 1));
    assert_eq!(consistent(&bench.root()), ["1.0-r1", "1.0-r2"]);
    assert_eq!(pool(&bench.root()), 3, "a client may still want it");
    assert_eq!(
        bench.publish(&["1.0-r2"], 5000).generation,
        3,
        "nothing changes"
    );
    bench.publish(&["1.0-r3"], 5001);
    assert_eq!(pool(&bench.root()), 3);
    let modes = |path: &str| {
        let metadata = bench.root().join(path).metadata().unwrap();
        std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777
    };
    assert_eq!(
        ["pool", "current", "Packages.gz", "key.asc"].map(modes),
        [0o755, 0o755, 0o644, 0o644]
    );
}

#[test]
fn a_version_with_other_content_is_refused_and_remembered() {
    let bench = Bench::new();
    bench.publish(&["1.0"], 0);
    let before = bench.packages();
    let repository = bench.repository();
    let published = repository
        .publish(vec![addition("1.0", "x")], &bench.keys, at(1))
        .unwrap();
    assert_eq!(published.added.len(), 0);
    let reason = &published.refused[0].reason;
    assert!(
        reason.starts_with("the feed has hello 1.0 (amd64, deb) of build 7"),
        "{reason}"
    );
    assert_eq!(bench.packages(), before);
    assert_eq!(repository.state().unwrap().unwrap().refused.len(), 1);
    let mut wrong = addition("2.0", "");
    wrong.sha256 = sys::file::digest_of(b"");
    let published = repository.publish(vec![wrong], &bench.keys, at(2)).unwrap();
    assert!(published.refused[0].reason.contains("record of its build"));
    assert_eq!(
        (pool(&bench.root()), consistent(&bench.root()).len()),
        (1, 1)
    );
}

#[test]
fn a_rebuild_finds_lost_and_changed_packages_and_signs_with_new_keys() {
    let mut bench = Bench::new();
    bench.publish(&["1.0", "2.0"], 0);
    let repository = bench.repository();
    let entries = repository.state().unwrap().unwrap().entries;
    std::fs::remove_file(bench.root().join(entries[0].path())).unwrap();
    assert_eq!(repository.missing().unwrap(), [entries[0].path()]);
    let new = new_key(bench.directory.path(), "new");
    bench.keys.push(FeedKey::read(&new).unwrap());
    assert!(repository.needs_signature(&repository.state().unwrap().unwrap(), &bench.keys));
    let rebuilt = repository.rebuild(&bench.keys, at(1)).unwrap();
    assert_eq!(rebuilt.lost.len(), 1, "{rebuilt:?}");
    assert_eq!(consistent(&bench.root()), ["2.0"]);
    let state = repository.state().unwrap().unwrap();
    assert_eq!(
        (state.entries[0].build, state.keys.len()),
        (Some(BuildId(7)), 2)
    );
    // A damaged state stops the agent, and a rebuild makes another one.
    let path = bench.root().join("current/state.json");
    sys::file::replace(&path, b"{").unwrap();
    let error = repository
        .publish(Vec::new(), &bench.keys, at(2))
        .unwrap_err()
        .to_string();
    assert!(error.contains("buildhost feed rebuild"), "{error}");
    let rebuilt = repository.rebuild(&bench.keys, at(3)).unwrap();
    assert_eq!((rebuilt.generation, rebuilt.lost.len()), (3, 0));
    assert_eq!(consistent(&bench.root()), ["2.0"]);
}

#[test]
fn packages_outlive_the_loss_of_the_current_generation() {
    let bench = Bench::new();
    bench.publish(&["1.0", "2.0"], 0);
    std::fs::remove_file(bench.root().join(CURRENT)).unwrap();
    let published = bench.publish(&[], 1);
    assert_eq!(
        (published.generation, consistent(&bench.root())),
        (2, vec!["1.0".into(), "2.0".into()])
    );
}

#[test]
fn a_crash_at_any_change_leaves_the_old_or_the_new_indexes() {
    let mut count = 0;
    for fuse in 0.. {
        let bench = Bench::new();
        bench.publish(&["1.0", "1.1"], 0);
        let repository = bench.repository();
        repository.disk.fuse.set(Some(fuse));
        let additions = vec![addition("1.2", ""), addition("1.3", "")];
        let crashed = repository
            .publish(additions, &bench.keys, at(4000))
            .is_err();
        let seen = consistent(&bench.root());
        assert!(
            seen == ["1.0", "1.1"] || seen == ["1.2", "1.3"],
            "crash {fuse}: {seen:?}"
        );
        bench.publish(&["1.2", "1.3"], 4001);
        assert_eq!(consistent(&bench.root()), ["1.2", "1.3"], "crash {fuse}");
        bench.publish(&[], 9000);
        bench.publish(&["1.4"], 9001);
        assert_eq!(consistent(&bench.root()), ["1.3", "1.4"], "crash {fuse}");
        assert_eq!(pool(&bench.root()), 3, "crash {fuse}");
        let generations = entries(&bench.root().join(GENERATIONS));
        assert_eq!(generations, 2, "crash {fuse}");
        if !crashed {
            break;
        }
        count += 1;
    }
    assert!(count > 30, "{count}");
}

fn entries(directory: &Path) -> usize {
    sys::file::entries(directory).unwrap().len()
}

#[test]
fn the_first_publication_can_crash_as_well() {
    for fuse in 0.. {
        let bench = Bench::new();
        let repository = bench.repository();
        repository.disk.fuse.set(Some(fuse));
        let crashed = repository
            .publish(vec![addition("1", "")], &bench.keys, at(0))
            .is_err();
        bench.publish(&["1"], 1);
        assert_eq!(consistent(&bench.root()), ["1"], "crash {fuse}");
        let rest = entries(&bench.root());
        // The lock, the pool, the generations, the link, and the six names of clients.
        assert_eq!(rest, 10, "crash {fuse}");
        if !crashed {
            break;
        }
    }
}

#[test]
fn an_index_stays_by_its_hash_while_a_client_reads() {
    let bench = Bench::new();
    bench.publish(&["1"], 0);
    let hash = sys::file::digest_of(bench.packages().as_bytes());
    let old = bench.root().join(format!(
        "dists/stable/main/binary-amd64/by-hash/SHA256/{hash}"
    ));
    for version in 2..20 {
        bench.publish(&[&version.to_string()], version);
        assert_eq!(
            sys::file::digest(sys::trusted::open(&old).unwrap()).unwrap(),
            hash
        );
    }
    bench.publish(&["20"], 3700);
    assert!(!old.exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_indexes_hold_after_any_publications(batches in prop::collection::vec(prop::collection::vec(0_u32..6, 0..3), 0..6)) {
        let bench = Bench::new();
        for (batch, time) in batches.iter().zip(1..) {
            let versions: Vec<_> = batch.iter().map(|it| format!("1.{it}")).collect();
            let versions: Vec<_> = versions.iter().map(String::as_str).collect();
            bench.publish(&versions, time * 2000);
            let seen = consistent(&bench.root());
            prop_assert!(seen.len() <= 2);
        }
    }
}
