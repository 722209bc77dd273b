//! Tests of leases on real files.

use config::builds::State;
use telemetry::Telemetry;

use super::*;
use crate::Deletion;
use crate::migrations::MIGRATIONS;

fn request(session: &str) -> Request {
    let request: Request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let task = ControllerTask {
        controller: "ci".parse().unwrap(),
        priority: "100".parse().unwrap(),
        session: session.to_owned(),
        package: "libhello".to_owned(),
        version: "1.0.0".to_owned(),
        expires: Timestamp::UNIX_EPOCH,
        auxiliaries: Vec::new(),
        script: false,
        guarded: false,
        trial: None,
    };
    Request {
        controller: Some(task),
        ..request
    }
}

async fn take(records: &Records, session: &str) -> Option<Build> {
    let id = records.reserve_id().await.unwrap();
    let toolchain = "default".parse().unwrap();
    let submitter = "controller:ci".parse().unwrap();
    let (request, now) = (request(session), Timestamp::UNIX_EPOCH);
    let terms = "terms".to_owned();
    let taken = records.submit_leased(id, request, toolchain, submitter, terms, now);
    taken.await.unwrap()
}

#[tokio::test]
async fn a_session_is_taken_once_even_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    // Opened again each time, as after a crash.
    let open = || Records::open(&path, Telemetry::default()).unwrap();
    let build = take(&open(), "t/1").await.unwrap();
    assert_eq!(build.id, BuildId(1));
    assert_eq!(take(&open(), "t/1").await, None);
    let other = take(&open(), "t/2").await.unwrap();
    assert_eq!(other.id, BuildId(3), "a reserved number is not reused");
    let leases = open().open_leases().await.unwrap();
    let sessions: Vec<_> = leases.iter().map(|(it, _)| it.session.as_str()).collect();
    assert_eq!(sessions, ["t/1", "t/2"]);
    assert_eq!(leases[0].1, build);
    assert_eq!(leases[0].1.controller, request("t/1").controller);
}

#[tokio::test]
async fn a_build_stays_until_its_result_was_reported() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    let mut build = take(&records, "t/1").await.unwrap();
    build.enter(State::Finished, Timestamp::UNIX_EPOCH).unwrap();
    records.save(&mut build).await.unwrap();
    assert!(records.summaries().unwrap()[0].held);
    let delete = async || records.delete(build.id).await.unwrap();
    assert_eq!(delete().await, Deletion::Unreported);
    for _ in 0..2 {
        records
            .lease_failed(build.id, "no answer".into())
            .await
            .unwrap();
    }
    let lease = records.lease(build.id).await.unwrap().unwrap();
    assert_eq!((lease.failures, &*lease.failure), (2, "no answer"));
    for part in ["archive", "debian", "archive"] {
        records
            .lease_part_sent(build.id, part.into())
            .await
            .unwrap();
    }
    let lease = records.lease(build.id).await.unwrap().unwrap();
    assert_eq!(lease.sent, ["archive", "debian"]);
    assert_eq!((lease.failures, &*lease.failure), (0, ""));
    let now = Timestamp::UNIX_EPOCH;
    records
        .settle_lease(build.id, "200".into(), now)
        .await
        .unwrap();
    records
        .settle_lease(build.id, "400".into(), now)
        .await
        .unwrap();
    let lease = records.lease(build.id).await.unwrap().unwrap();
    assert_eq!((lease.settled, &*lease.answer), (Some(now), "200"));
    assert_eq!(records.open_leases().await.unwrap(), []);
    let counts = records.lease_counts().await.unwrap();
    assert_eq!((counts[0].taken, counts[0].open), (1, 0));
    assert!(!records.summaries().unwrap()[0].held);
    assert_eq!(delete().await, Deletion::Done);
    assert_eq!(records.lease(build.id).await.unwrap(), None);
}

#[tokio::test]
async fn builds_recorded_before_controllers_have_no_task_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r");
    let mut connection = Connection::open(&path).unwrap();
    let transaction = connection.transaction().unwrap();
    for migrate in &MIGRATIONS[..16] {
        migrate(&transaction).unwrap();
    }
    let task = "0".repeat(64);
    let insert = "INSERT INTO builds (machine, toolchain, target, sources, task, state, submitted)
                  VALUES ('linux', 'default', '-', '[]', ?1, 'queued', '2026-11-20T10:00:00Z')";
    transaction.execute(insert, [&task]).unwrap();
    transaction.pragma_update(None, "user_version", 16).unwrap();
    transaction.commit().unwrap();
    drop(connection);
    let records = Records::open(&path, Telemetry::default()).unwrap();
    let build = records.get(BuildId(1)).await.unwrap().unwrap();
    assert_eq!(build.controller, None);
    assert_eq!(records.open_leases().await.unwrap(), []);
    assert_eq!(take(&records, "t/1").await.unwrap().id, BuildId(2));
}

#[tokio::test]
async fn the_leases_of_a_controller_are_settled_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let records = Records::open(&directory.path().join("r"), Telemetry::default()).unwrap();
    let mut builds = Vec::new();
    for session in ["t/1", "t/2"] {
        builds.push(take(&records, session).await.unwrap());
    }
    let settle = async |name: &str| {
        let answer = "given up".to_owned();
        let settle = records.settle_leases_of(name.parse().unwrap(), answer, Timestamp::UNIX_EPOCH);
        settle.await.unwrap()
    };
    let open = async || records.open_leases().await.unwrap().len();
    builds[0]
        .enter(State::Finished, Timestamp::UNIX_EPOCH)
        .unwrap();
    records.save(&mut builds[0]).await.unwrap();
    assert_eq!(settle("ci").await, None, "a build has not ended");
    assert_eq!(open().await, 2);
    builds[1]
        .enter(State::Finished, Timestamp::UNIX_EPOCH)
        .unwrap();
    records.save(&mut builds[1]).await.unwrap();
    assert_eq!(settle("another").await, Some(0));
    assert_eq!(settle("ci").await, Some(2));
    assert_eq!(settle("ci").await, Some(0));
    assert_eq!(open().await, 0);
    let lease = records.lease(builds[0].id).await.unwrap().unwrap();
    assert_eq!(lease.answer, "given up");
}
