//! Files of BitBake's server and of other servers.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use super::harness::{Server, database, execute, hash, hashserv, wait_until};

#[test]
fn a_file_of_bitbake_2_2_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    execute(
        &db,
        "CREATE TABLE unihashes_v2 (id INTEGER PRIMARY KEY AUTOINCREMENT, method TEXT NOT NULL,
            taskhash TEXT NOT NULL, unihash TEXT NOT NULL, UNIQUE(method, taskhash));
        INSERT INTO unihashes_v2 (method, taskhash, unihash) VALUES ('m', 'old', 'short');",
    );
    for _ in 0..2 {
        let server = Server::start(&db);
        let mut client = server.client();
        let get = json!({"get": {"method": "m", "taskhash": "old"}});
        assert_eq!(client.request(&get).unwrap()["unihash"], "short");
    }
}

#[test]
fn two_servers_share_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let (one, other) = (Server::start(&db), Server::start(&db));
    let reader = Server::start_with(&db, &["--read-only"]);
    let mut clients = [one.client(), other.client(), reader.client()];
    for client in &mut clients {
        assert_eq!(client.get(1).unwrap(), None);
    }
    clients[0].report(1, 1).unwrap();
    assert_eq!(
        clients[1].report(2, 1).unwrap(),
        hash(1),
        "an equivalence of the other"
    );
    for client in &mut clients {
        assert_eq!(client.get(2).unwrap(), Some(hash(1)));
    }
    clients[0]
        .request(&json!({"remove": {"where": {"method": "m"}}}))
        .unwrap();
    for client in &mut clients {
        wait_until("the deletion is noticed", || {
            client.get(2).unwrap().is_none()
        });
    }
}

#[test]
fn a_read_only_server_records_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let missing = hashserv()
        .args(["serve", "--read-only", "--listen", "127.0.0.1:0", "--db"])
        .arg(&db)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(3));
    let writer = Server::start(&db);
    writer.client().report(1, 1).unwrap();
    let server = Server::start_with(&db, &["--read-only"]);
    let mut client = server.client();
    assert_eq!(client.report(2, 1).unwrap(), hash(1));
    assert_eq!(client.report(3, 3).unwrap(), hash(3));
    assert_eq!(client.get(2).unwrap(), None);
    let equation =
        json!({"report-equiv": {"method": "m", "taskhash": hash(1), "unihash": hash(9)}});
    assert_eq!(client.request(&equation).unwrap()["unihash"], hash(1));
    let refused = client
        .request(&json!({"gc-mark": {"mark": "A", "where": {}}}))
        .unwrap();
    let message = refused["invoke-error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("read-only"), "{message}");
}

#[test]
fn a_failing_database_is_reported_in_the_log_and_not_to_clients() {
    let directory = tempfile::tempdir().unwrap();
    let db = database(&directory);
    let server = Server::start(&db);
    let mut client = server.client();
    client.report(1, 1).unwrap();
    execute(&db, "DROP TABLE outhashes_v2");
    let error = client.report(2, 2).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    server.wait_for_log("a transaction failed");
    assert_eq!(server.client().get(1).unwrap(), Some(hash(1)));
}

#[test]
fn the_command_line_of_bitbake_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let alias = directory.path().join("bitbake-hashserv");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hashserv"), &alias).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the program under another name")]
    let mut command = std::process::Command::new(alias);
    command
        .args([
            "-b",
            "unix://./socket",
            "-l",
            "INFO",
            "--anon-perms",
            "@read",
            "-d",
            "h.db",
        ])
        .env("NO_COLOR", "1")
        .current_dir(directory.path());
    let mut server = Server::launch(command);
    let stream = std::os::unix::net::UnixStream::connect(directory.path().join("socket")).unwrap();
    let mut client = super::harness::Client::new(stream);
    client.report(1, 1).unwrap();
    assert_eq!(client.get(1).unwrap(), None, "only @read");
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(directory.path().join("h.db").exists());
}
