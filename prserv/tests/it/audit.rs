//! The audit log: a line for each value that is assigned, imported or removed.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::harness::{Server, tuple};

fn lines(path: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(serde_json::from_str);
    lines.map(Result::unwrap).collect()
}

#[test]
fn each_new_value_has_a_line_before_its_client_gets_it_and_a_known_one_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit.jsonl");
    let arguments = ["--audit-log", log.to_str().unwrap()];
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), &arguments);
    let mut client = server.client();
    let import =
        json!({"import-one": {"version": "v", "pkgarch": "all", "checksum": "b", "value": 7}});
    client.get("v", "a").unwrap();
    assert_eq!(lines(&log).len(), 1);
    client.get("v", "a").unwrap();
    client
        .request(&json!({"test-pr": tuple("v", "x")}))
        .unwrap();
    assert_eq!(lines(&log).len(), 1);
    client.request(&import).unwrap();
    client.get("v", "c").unwrap();
    let lines = lines(&log);
    let rows: Vec<_> = lines
        .iter()
        .map(|line| [&line["change"], &line["checksum"], &line["value"]])
        .collect();
    assert_eq!(
        rows,
        [
            ["assigned", "a", "0"],
            ["imported", "b", "7"],
            ["assigned", "c", "8"]
        ]
    );
    for line in &lines {
        let client = line["client"].as_str().unwrap();
        assert!(client.starts_with("127.0.0.1:"), "{line}");
        assert_eq!(line["token"], Json::Null);
        let time = line["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
    }
}

#[test]
fn values_are_given_while_the_log_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--audit-log", "/dev/full"];
    let server = Server::start_with(dir.path().join("prserv.sqlite3"), &arguments);
    assert_eq!(server.client().get("v", "a").unwrap(), "0");
    assert_eq!(server.client().get("v", "b").unwrap(), "1");
    server.wait_for_log("cannot write to the audit log");
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let metrics = String::from_utf8(server.exchange(request)).unwrap();
    assert!(
        metrics.contains("prserv_audit_failures_total 2"),
        "{metrics}"
    );
}
