use config::builds::{ForkOrigin, Submitter};
use config::canary::{TrialResult, TrialRun};
use config::settings::Settings;
use config::task::Breakpoint;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

type Change = fn(&mut Build);

fn rules() -> CacheRules {
    let text = "[[caches]]\nname = \"yocto\"\nwriters = [\"alice\", \"token:nightly\"]\n";
    Settings::parse(text).unwrap().caches.remove(0)
}

fn build(submitter: &str) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, task) = ("default".parse().unwrap(), "0".repeat(64).parse().unwrap());
    let submitter: Submitter = submitter.parse().unwrap();
    let now = Timestamp::UNIX_EPOCH;
    Build::new(BuildId(1), request, toolchain, task, submitter, now)
}

fn trial(result: Option<TrialResult>) -> TrialRun {
    TrialRun {
        revision: config::Revision(2),
        since: Timestamp::UNIX_EPOCH,
        result,
    }
}

#[test]
fn only_the_named_submitters_fill_a_cache() {
    for (submitter, expected) in [
        ("alice", CacheMode::Write),
        ("token:nightly", CacheMode::Write),
        ("nightly", CacheMode::Read),
        ("token:alice", CacheMode::Read),
        ("root", CacheMode::Read),
        ("bob", CacheMode::Read),
    ] {
        assert_eq!(mode(&rules(), &build(submitter)), expected, "{submitter}");
    }
    let refused = rights(&rules(), &build("bob")).unwrap_err().to_string();
    assert!(refused.starts_with("builds of bob only read the cache yocto"));
}

#[test]
fn a_build_that_is_not_only_its_request_does_not_fill_a_cache() {
    let table: [(ReadOnly, Change); 3] = [
        (ReadOnly::Copy, |build| {
            build.forked_from = Some(ForkOrigin {
                build: BuildId(7),
                number: 1,
                copies: 2,
                seconds: 3,
            });
        }),
        (ReadOnly::Trial, |build| build.trial = Some(trial(None))),
        (ReadOnly::Breakpoint, |build| {
            build.interactive.breakpoint = Some(Breakpoint::Error);
        }),
    ];
    for (expected, change) in table {
        let mut build = build("alice");
        change(&mut build);
        assert_eq!(rights(&rules(), &build), Err(expected));
    }
    // The attempt on the revision on trial has ended; this one runs on the current revision.
    let mut build = build("alice");
    build.trial = Some(trial(Some(TrialResult::Succeeded)));
    assert_eq!(rights(&rules(), &build), Ok(()));
}

#[test]
fn a_published_download_never_changes_its_content() {
    let hash = |text: &str| ContentHash::from(blake3::hash(text.as_bytes()));
    let (one, two) = (hash("one"), hash("two"));
    for (area, known, expected) in [
        (Area::Downloads, None, Put::Store),
        (Area::Downloads, Some(one), Put::Same),
        (Area::Downloads, Some(two), Put::Conflict),
        (Area::SharedState, None, Put::Store),
        (Area::SharedState, Some(one), Put::Same),
        (Area::SharedState, Some(two), Put::Conflict),
        (Area::Objects, None, Put::Store),
        (Area::Objects, Some(one), Put::Same),
        (Area::Objects, Some(two), Put::Store),
    ] {
        assert_eq!(put(area, known, one), expected, "{area} {known:?}");
    }
}

proptest! {
    #[test]
    fn the_oldest_entries_are_deleted_and_no_more_than_needed(
        sizes in prop::collection::vec(0_u64..100, 0..20),
        bytes_max in 0_u64..1000,
    ) {
        let path = |index: usize| format!("objects/{index}").parse::<CachePath>().unwrap();
        let entries: Vec<_> = sizes.iter().enumerate().map(|(index, bytes)| (path(index), *bytes)).collect();
        let bytes: u64 = sizes.iter().sum();
        let gone = evicted(entries.clone(), bytes, bytes_max);
        prop_assert_eq!(&gone[..], &entries[..gone.len()]);
        let rest: u64 = sizes[gone.len()..].iter().sum();
        prop_assert!(rest <= bytes_max);
        if let Some((_, last)) = gone.last() {
            prop_assert!(rest + last > bytes_max);
        }
    }
}
