//! Changes of many rows, beside which clients are served.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{Server, database, execute, hash};

/// Adds unihashes `from..to` and their reports to a file of a server that has created it.
fn fill(db: &Path, from: u64, to: u64) {
    let numbers = format!(
        "WITH RECURSIVE n(n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {to})"
    );
    execute(
        db,
        &format!(
            "BEGIN;
            INSERT INTO unihashes_v3 (method, taskhash, unihash, gc_mark)
                {numbers} SELECT 'm', printf('%064x', n), printf('%064x', n), '' FROM n;
            INSERT INTO outhashes_v2 (method, taskhash, outhash, created)
                {numbers} SELECT 'm', printf('%064x', n), printf('%064x', n),
                '2020-01-01T00:00:00+00:00' FROM n;
            COMMIT;"
        ),
    );
}

#[test]
fn nobody_waits_for_a_large_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    drop(Server::start(&db));
    fill(&db, 0, 60_000);
    let server = Server::start(&db);
    let mut admin = server.client();
    let keep = json!({"gc-mark": {"mark": "A", "where": {"unihash": hash(7)}}});
    assert_eq!(admin.request(&keep).unwrap(), json!({"count": 1}));
    let (longest, reported) = thread::scope(|scope| {
        let server = &server;
        let sweep = scope.spawn(move || {
            let mut admin = server.client();
            admin.request(&json!({"gc-sweep": {"mark": "A"}})).unwrap()
        });
        let mut client = server.client();
        let (mut longest, mut reported) = (Duration::ZERO, 0_u64);
        while !sweep.is_finished() {
            let start = Instant::now();
            let task = 1_000_000 + reported;
            client.report(task, task).unwrap();
            assert_eq!(client.get(7).unwrap(), Some(hash(7)));
            longest = longest.max(start.elapsed());
            reported += 1;
        }
        assert_eq!(sweep.join().unwrap(), json!({"count": 59_999}));
        (longest, reported)
    });
    assert!(reported > 3, "the sweep held up all but {reported} reports");
    assert!(
        longest < Duration::from_secs(2),
        "a client waited {longest:?}"
    );
    // What was reported meanwhile is kept.
    let mut client = server.client();
    for number in 0..reported {
        assert_eq!(
            client.get(1_000_000 + number).unwrap(),
            Some(hash(1_000_000 + number))
        );
    }
    assert_eq!(client.get(8).unwrap(), None);
    let status = client.request(&json!({"gc-status": {}})).unwrap();
    assert_eq!(status["mark"], json!(null));
}

#[test]
fn what_is_deleted_is_not_answered_from_memory() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let mut client = server.client();
    for (task, condition, count) in [
        (1, json!({"unihash": hash(1)}), 1),
        (2, json!({"taskhash": hash(2)}), 2),
        (3, json!({"method": "m", "taskhash": hash(3)}), 2),
    ] {
        client.report(task, task).unwrap();
        assert_eq!(client.get(task).unwrap(), Some(hash(task)));
        let removed = client
            .request(&json!({"remove": {"where": condition}}))
            .unwrap();
        assert_eq!(removed, json!({ "count": count }));
        assert_eq!(client.get(task).unwrap(), None);
        client.send("{\"exists-stream\": null}").unwrap();
        client.receive().unwrap();
        client.send(&hash(task)).unwrap();
        assert_eq!(client.receive().unwrap(), "false");
        client.send("END").unwrap();
        client.receive().unwrap();
    }
}

#[test]
fn a_condition_of_two_tables_deletes_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let mut client = server.client();
    client.report(1, 1).unwrap();
    client.report(2, 2).unwrap();
    let condition = json!({"remove": {"where": {"method": "m", "outhash": hash(1)}}});
    assert_eq!(client.request(&condition).unwrap(), json!({"count": 1}));
    assert_eq!(client.get(1).unwrap(), Some(hash(1)));
    assert_eq!(client.get(2).unwrap(), Some(hash(2)));
    let nothing = json!({"remove": {"where": {}}});
    assert_eq!(client.request(&nothing).unwrap(), json!({"count": 0}));
}

#[test]
fn unused_reports_are_deleted_from_their_age_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let mut client = server.client();
    client.report(1, 1).unwrap();
    client
        .request(&json!({"remove": {"where": {"unihash": hash(1)}}}))
        .unwrap();
    let mut clean = |age: u64| {
        client
            .request(&json!({"clean-unused": {"max_age_seconds": age}}))
            .unwrap()
    };
    assert_eq!(clean(3600), json!({"count": 0}), "it is younger");
    assert_eq!(clean(0), json!({"count": 1}));
}

#[test]
fn old_tasks_are_deleted_by_the_server_itself() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    drop(Server::start(&db));
    fill(&db, 0, 3000);
    let server = Server::start_with(&db, &["--keep-days", "30"]);
    let mut client = server.client();
    client.report(5000, 5000).unwrap();
    super::harness::wait_until("old tasks are gone", || client.get(0).unwrap().is_none());
    super::harness::wait_until("old reports are gone", || {
        let usage = client.request(&json!({"get-db-usage": {}})).unwrap();
        usage["usage"]["outhashes_v2"]["rows"] == 1
    });
    assert_eq!(client.get(5000).unwrap(), Some(hash(5000)));
}
