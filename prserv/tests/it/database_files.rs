//! SQLite files, concurrent access to them, and the end of the server.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use super::harness::{Server, prserv, tuple};

#[test]
fn values_survive_a_restart_in_bitbakes_format() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut server = Server::start(&db);
    assert_eq!(server.client().get("v", "a").unwrap(), "0");
    assert_eq!(server.client().get("v", "b").unwrap(), "1");
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    let sqlite = rusqlite::Connection::open(&db).unwrap();
    let row = "SELECT value, typeof(value) FROM PRMAIN WHERE version = 'v' AND checksum = 'b'";
    let stored: (String, String) = sqlite
        .query_row(row, [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(stored, ("1".to_owned(), "text".to_owned()));
    sqlite
        .execute("INSERT INTO PRMAIN VALUES ('v', 'all', 'c', '12')", [])
        .unwrap();
    drop(sqlite);
    let server = Server::start(&db);
    assert_eq!(server.client().get("v", "b").unwrap(), "13");
}

#[test]
fn another_program_can_read_the_file_of_a_running_server_but_not_write_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut server = Server::start(&db);
    let mut client = server.client();
    let sqlite = rusqlite::Connection::open(&db).unwrap();
    sqlite.busy_timeout(Duration::ZERO).unwrap();
    let insert = || sqlite.execute("INSERT INTO PRMAIN VALUES ('v', 'all', 'x', '41')", []);
    for (checksum, value) in [("a", "0"), ("b", "1")] {
        let error = insert().unwrap_err();
        assert!(error.to_string().contains("database is locked"), "{error}");
        assert_eq!(client.get("v", checksum).unwrap(), value);
        let max = "SELECT max(value) FROM PRMAIN";
        let stored: String = sqlite.query_row(max, [], |row| row.get(0)).unwrap();
        assert_eq!(stored, value);
    }
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert_eq!(insert(), Ok(1));
    let server = Server::start(&db);
    assert_eq!(server.client().get("v", "c").unwrap(), "42");
}

#[test]
fn a_read_only_server_on_the_file_of_a_running_one_sees_every_answered_value() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let writer = Server::start(&db);
    let reader = Server::start_with(&db, &["--read-only"]);
    let (mut write, mut read) = (writer.client(), reader.client());
    assert_eq!(
        read.request(&json!({"is-readonly": {}})).unwrap(),
        json!({"readonly": true})
    );
    for round in 0..50 {
        let checksum = format!("c{round}");
        let would_be = read.get("v", &checksum).unwrap();
        assert_eq!(
            read.get("v", &checksum).unwrap(),
            would_be,
            "no value is assigned"
        );
        assert_eq!(write.get("v", &checksum).unwrap(), would_be);
        let known = read
            .request(&json!({"test-pr": tuple("v", &checksum)}))
            .unwrap();
        assert_eq!(known, json!({ "value": would_be }));
    }
    let import =
        json!({"import-one": {"version": "v", "pkgarch": "all", "checksum": "x", "value": 99}});
    assert_eq!(read.request(&import).unwrap(), json!(null));
    assert_eq!(read.rows().len(), 50);
}

#[test]
fn a_second_writer_and_a_missing_file_are_refused_with_status_3() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let serve = |extra: &[&str]| {
        let mut command = prserv();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--db"])
            .arg(&db)
            .args(extra);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, error) = serve(&["--read-only"]);
    assert_eq!(status, Some(3));
    assert!(error.contains("there is no database"), "{error}");
    let _server = Server::start(&db);
    let (status, error) = serve(&[]);
    assert_eq!(status, Some(3));
    assert!(error.contains("another PR server writes to"), "{error}");
}

#[test]
fn sigterm_ends_the_server_within_a_second_despite_idle_clients() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut idle: Vec<_> = (0..10).map(|_| server.client()).collect();
    idle[0].get("v", "a").unwrap();
    let start = Instant::now();
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
    assert!(idle[0].get("v", "a").is_err());
}

/// Creates a file as BitBake 2.8's server does.
fn create_old_file(db: &std::path::Path) {
    let sqlite = rusqlite::Connection::open(db).unwrap();
    sqlite
        .execute_batch(
            "CREATE TABLE PRMAIN_nohist (version TEXT NOT NULL, pkgarch TEXT NOT NULL,
             checksum TEXT NOT NULL, value INTEGER, PRIMARY KEY (version, pkgarch, checksum));
             INSERT INTO PRMAIN_nohist VALUES ('v', 'all', 'a', 15), ('w', 'all', 'a', 'abc');",
        )
        .unwrap();
}

#[test]
fn an_old_file_continues_with_its_values() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    create_old_file(&db);
    let server = Server::start(&db);
    let mut client = server.client();
    assert_eq!(client.get("v", "a").unwrap(), "15");
    assert_eq!(client.get("v", "b").unwrap(), "16");
    assert_eq!(client.get("w", "a").unwrap(), "0");
    assert!(
        server
            .log()
            .contains("migrated BitBake's old table rows=1 unusable=1")
    );
}

#[test]
fn the_status_of_check_tells_whether_a_repair_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let check = |extra: &[&str]| {
        let output = prserv()
            .arg("check")
            .arg("--db")
            .arg(&db)
            .args(extra)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(check(&[]).0, Some(3));
    let server = Server::start(&db);
    server.client().get("v", "a").unwrap();
    assert_eq!(
        check(&[]),
        (Some(0), String::new()),
        "a check works on a running server's file"
    );
    assert_eq!(check(&["--repair"]).0, Some(3), "a repair does not");
    drop(server);
    let sqlite = rusqlite::Connection::open(&db).unwrap();
    sqlite
        .execute("INSERT INTO PRMAIN VALUES ('v', 'all', 'b', '0')", [])
        .unwrap();
    let line = "v for all with checksum b: 0 belongs to a; 1 is free\n";
    assert_eq!(check(&[]), (Some(4), format!("fault: {line}")));
    assert_eq!(check(&["--repair"]), (Some(0), format!("repaired: {line}")));
    assert_eq!(check(&[]), (Some(0), String::new()));
}
