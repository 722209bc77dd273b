//! Tests of the records on real files.

use config::BuildId;
use config::builds::{
    Build, BuildInputs, Count, ForkOrigin, GuestKind, Phase, Priority, Request, State, Submitter,
};
use config::canary::{TrialResult, TrialRun};
use config::task::Outcome;
use jiff::Timestamp;
use telemetry::Telemetry;

use super::*;

fn request() -> Request {
    let text = r#"{"machine": "linux", "sources": [], "secrets": ["key"], "resources": {"cpus": 2, "counts": {"license": 1}}}"#;
    serde_json::from_str(text).unwrap()
}

async fn submitted(records: &Records) -> Build {
    records
        .submit(
            request(),
            "default".parse().unwrap(),
            Submitter::root(),
            Timestamp::UNIX_EPOCH,
        )
        .await
        .unwrap()
}

/// Returns the failed attempt of a build in the trial that began at `since`.
fn run(since: Timestamp) -> TrialRun {
    TrialRun {
        revision: config::Revision(8),
        since,
        result: Some(TrialResult::Failed {
            outcome: Outcome::Error,
            message: "no make".into(),
        }),
    }
}

#[tokio::test]
async fn the_builds_of_a_trial_are_those_that_ran_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.sqlite3");
    let records = Records::open(&path, Telemetry::default()).unwrap();
    let second = |second| Timestamp::from_second(second).unwrap();
    // The first build has no trial, the second one an earlier one; the last one is unfinished.
    for (since, finished) in [
        (None, true),
        (Some(1), true),
        (Some(9), true),
        (Some(9), false),
    ] {
        let mut build = submitted(&records).await;
        build.trial = since.map(|it| run(second(it)));
        build.enter(State::Starting, second(10)).unwrap();
        if finished {
            build.enter(State::Finished, second(11)).unwrap();
            build.outcome = Some(Outcome::Success);
        }
        records.save(&mut build).await.unwrap();
    }
    let linux = "linux".parse().unwrap();
    let found = records.of_trial(&linux, second(9)).await.unwrap();
    let found: Vec<_> = found.iter().map(|it| (it.id.0, it.trial.clone())).collect();
    let expected = Some(run(second(9)));
    assert_eq!(found, [(3, expected.clone()), (4, expected)]);
    let other = "hurd".parse().unwrap();
    assert_eq!(records.of_trial(&other, second(9)).await.unwrap(), []);
}

#[tokio::test]
async fn records_are_durable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("records.sqlite3");
    let mut build = submitted(&Records::open(&path, Telemetry::default()).unwrap()).await;
    let second = |second| Timestamp::from_second(second).unwrap();
    build.enter(State::Starting, second(1)).unwrap();
    build.enter(State::Finished, second(2)).unwrap();
    build.outcome = Some(Outcome::Warning);
    build.message = "two\nlines".into();
    build.priority = Priority(-3);
    build.not_before = Some(second(3));
    build.volume = Some("/build/machines".into());
    build.revision = Some(config::Revision(7));
    build.inputs = Some(BuildInputs {
        revision_uuid: "u-u".into(),
        contents_sha256: None,
        toolchain_sha256: "0".repeat(64).parse().unwrap(),
        image_sha256: None,
        policy: None,
        repositories: Vec::new(),
    });
    build.trial = Some(run(second(4)));
    build.guest = Some(GuestKind::Tcg);
    build.restored = true;
    build.usage.cpu_milliseconds = Some(4);
    build.progress.task = Count { done: 1, total: 2 };
    let records = Records::open(&path, Telemetry::default()).unwrap();
    records
        .save_progress(build.id, build.progress)
        .await
        .unwrap();
    records.save(&mut build).await.unwrap();
    assert_eq!(
        Records::open(&path, Telemetry::default())
            .unwrap()
            .get(build.id)
            .await
            .unwrap(),
        Some(build)
    );
}

#[tokio::test]
async fn an_update_of_a_record_that_was_changed_meanwhile_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    let mut first = submitted(&records).await;
    let mut second = records.get(first.id).await.unwrap().unwrap();
    first.message = "first".into();
    records.save(&mut first).await.unwrap();
    first.attempts = 1;
    records.save(&mut first).await.unwrap();
    second.message = "second".into();
    let conflict = records.save(&mut second).await;
    assert!(matches!(conflict, Err(RecordsError::Conflict(id)) if id == first.id));
    // Neither a reason for the wait nor progress nor a cancellation is in the way.
    let reasons = vec![(first.id, "it waits".to_owned())];
    records.set_wait_reasons(reasons).await.unwrap();
    records.request_cancel(first.id).await.unwrap();
    first.attempts = 2;
    records.save(&mut first).await.unwrap();
    let stored = records.get(first.id).await.unwrap().unwrap();
    assert_eq!((stored.attempts, &*stored.message), (2, "first"));
    assert!(stored.cancel_requested);
    let missing = &mut Build {
        id: BuildId(9),
        ..first
    };
    let conflict = records.save(missing).await;
    assert!(matches!(conflict, Err(RecordsError::Conflict(BuildId(9)))));
}

#[tokio::test]
async fn concurrent_changes_of_a_record_are_all_kept() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    let id = submitted(&records).await.id;
    let count = |_| {
        records.change(id, |build| {
            build.attempts += 1;
            true
        })
    };
    for changed in futures_util::future::join_all((0..20).map(count)).await {
        assert!(matches!(changed, Ok(Some((_, true)))));
    }
    let seen = records.change(id, |_| false).await.unwrap().unwrap();
    assert_eq!((seen.0.attempts, seen.0.saves, seen.1), (20, 20, false));
    assert_eq!(records.change(BuildId(9), |_| true).await.unwrap(), None);
}

#[tokio::test]
async fn builds_are_listed_newest_first_and_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    for _ in 0..3 {
        submitted(&records).await;
    }
    let ids = |builds: Vec<Build>| builds.iter().map(|build| build.id.0).collect::<Vec<_>>();
    assert_eq!(ids(records.newest(None, 2).await.unwrap()), [3, 2]);
    assert_eq!(ids(records.newest(Some(BuildId(2)), 2).await.unwrap()), [1]);
    assert_eq!(ids(records.unfinished().await.unwrap()), [1, 2, 3]);
}

#[tokio::test]
async fn numbers_are_not_reused() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    records.reserve_ids(BuildId(6)).await.unwrap();
    assert_eq!(submitted(&records).await.id, BuildId(7));
    records.reserve_ids(BuildId(3)).await.unwrap();
    assert_eq!(submitted(&records).await.id, BuildId(8));
}

#[tokio::test]
async fn a_database_of_the_first_version_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let fixture = include_bytes!("fixtures/format-1.sqlite3");
    sys::file::replace(&path, fixture).unwrap();
    let records = Records::open(&path, Telemetry::default()).unwrap();
    let build = records.get(BuildId(1)).await.unwrap().unwrap();
    assert_eq!(build.submitter, Submitter::root());
    assert_eq!(build.target.as_str(), "hello");
    assert_eq!(
        build.submitted.to_string(),
        "2026-11-20T10:00:00.123456789Z"
    );
    assert_eq!(build.packages[0].revision, "r0.2");
    assert_eq!(build.volume, None);
    let states = |phase: &Phase| phase.state;
    let expected = [State::Queued, State::Starting, State::Finished];
    assert_eq!(
        build.phases.iter().map(states).collect::<Vec<_>>(),
        expected
    );
    let waiting = records.unfinished().await.unwrap();
    let ids: Vec<_> = waiting.iter().map(|build| build.id.0).collect();
    assert_eq!(ids, [4]);
    assert_eq!(waiting[0].task, build.task);
    assert_eq!(records.newest_id().await.unwrap(), Some(BuildId(6)));
    assert_eq!(submitted(&records).await.id, BuildId(7));
}

#[tokio::test]
async fn a_build_recorded_by_version_8_gets_a_volume_with_its_next_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut connection = Connection::open(&path).unwrap();
    let transaction = connection.transaction().unwrap();
    for migrate in &MIGRATIONS[..8] {
        migrate(&transaction).unwrap();
    }
    let task = "0".repeat(64);
    let insert = "INSERT INTO builds (machine, toolchain, target, sources, task, state, submitted)
                  VALUES ('linux', 'default', '-', '[]', ?1, 'queued', '2026-11-20T10:00:00Z')";
    transaction.execute(insert, [&task]).unwrap();
    transaction.pragma_update(None, "user_version", 8).unwrap();
    transaction.commit().unwrap();
    drop(connection);
    let records = Records::open(&path, Telemetry::default()).unwrap();
    let mut build = records.get(BuildId(1)).await.unwrap().unwrap();
    assert_eq!(build.volume, None);
    build.volume = Some("/build/machines".into());
    records.save(&mut build).await.unwrap();
    assert_eq!(records.get(build.id).await.unwrap(), Some(build));
}

#[test]
fn the_task_hash_depends_on_every_part() {
    let digest = |sources: &str, machine: &str| {
        let sources: Vec<Source> = serde_json::from_str(sources).unwrap();
        task(
            &machine.parse().unwrap(),
            &"default".parse().unwrap(),
            &sources,
        )
    };
    let source = |name: &str, digit: &str| {
        format!(r#"{{"name": "{name}", "sha256": "{}"}}"#, digit.repeat(64))
    };
    let (a, b) = (source("a", "1"), source("b", "2"));
    let ab = digest(&format!("[{a}, {b}]"), "linux");
    assert_eq!(ab, digest(&format!("[{b}, {a}]"), "linux"));
    for other in [
        digest(&format!("[{a}]"), "linux"),
        digest(&format!("[{a}, {b}]"), "linux2"),
        digest(&format!("[{a}, {}]", source("b", "1")), "linux"),
        digest(&format!("[{a}, {}]", source("c", "2")), "linux"),
    ] {
        assert_ne!(ab, other);
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = Records::open(&path, Telemetry::default())
        .unwrap_err()
        .to_string();
    let known = super::migrations::MIGRATIONS.len();
    let expected = format!("newer buildhost-agent (format 99, this one knows {known})");
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn a_file_that_is_not_a_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    sys::file::replace(&path, &[b'x'; 4096]).unwrap();
    assert!(matches!(
        Records::open(&path, Telemetry::default()),
        Err(RecordsError::Database { .. })
    ));
}

#[tokio::test]
async fn copies_of_a_build_are_recorded_together_with_their_origin() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    let mut source = submitted(&records).await;
    source.restored = true;
    let origin = |number| ForkOrigin {
        build: source.id,
        number,
        copies: 2,
        seconds: 7,
    };
    let now = Timestamp::UNIX_EPOCH;
    let copy = |number| source.fork(origin(number), "token:x".parse().unwrap(), now);
    let mut copies = records.fork(vec![copy(1), copy(2)]).await.unwrap();
    for (copy, number) in copies.iter_mut().zip(1..) {
        assert_eq!(copy.id.0, source.id.0 + u64::from(number));
        let read = records.get(copy.id).await.unwrap().unwrap();
        assert_eq!(read, *copy);
        assert_eq!(read.forked_from, Some(origin(number)));
        assert!(read.restored && read.state == State::Starting && read.attempts == 1);
        copy.enter(State::Running, now).unwrap();
        records.save(copy).await.unwrap();
    }
}
