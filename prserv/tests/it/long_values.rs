//! Values that are longer than a revision may be: refused from peers and files, read from databases.

use std::fs::File;
use std::io::Write;

use serde_json::json;

use super::harness::{Server, prserv};

fn long() -> String {
    "9".repeat(65)
}

#[test]
fn no_protocol_imports_a_long_value_and_each_names_the_row() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let long = long();
    let row = json!({"version": "v", "pkgarch": "all", "checksum": "c", "value": long});
    let reply = server
        .client()
        .request(&json!({"import-one": row}))
        .unwrap();
    let message = reply["invoke-error"]["message"].as_str().unwrap();
    let expected = "the value of v for all with checksum c cannot be imported: too long";
    assert!(message.starts_with(expected), "{message}");

    let params = format!(
        "<param><value>v</value></param><param><value>all</value></param>\
         <param><value>c</value></param><param><value><int>{long}</int></value></param>"
    );
    let call = format!(
        "<methodCall><methodName>importone</methodName><params>{params}</params></methodCall>"
    );
    for (line, kind, body) in [
        ("POST /", "text/xml", call),
        ("PUT /api/v1/pr", "application/json", row.to_string()),
    ] {
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let reply = String::from_utf8(server.exchange(request.as_bytes())).unwrap();
        assert!(reply.contains("v for all with checksum c"), "{reply}");
        assert!(reply.contains("too long"), "{reply}");
    }
    assert!(server.client().rows().is_empty());
}

#[test]
fn a_file_with_a_long_value_fails_with_the_row_and_the_others_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.inc");
    let long = long();
    let text = format!("PRAUTO$v$all$c = \"{long}\"\nPRAUTO$w$all$d = \"7\"\n");
    File::create(&file)
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let db = dir.path().join("prserv.sqlite3");
    let mut command = prserv();
    command.arg("import").arg(&file).arg("--db").arg(&db);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("rows.inc:1: the value of v for all with checksum c is too long"),
        "{stderr}"
    );
    let rows = Server::start(&db).client().rows();
    assert_eq!(rows, [["w", "d", "7"].map(str::to_owned)]);
}

#[test]
fn a_long_value_in_an_old_database_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    drop(Server::start(&db));
    let connection = rusqlite::Connection::open(&db).unwrap();
    let insert =
        "INSERT INTO PRMAIN (version, pkgarch, checksum, value) VALUES ('v', 'all', 'c', ?)";
    connection.execute(insert, [&long()]).unwrap();
    drop(connection);
    let server = Server::start(&db);
    assert_eq!(server.client().get("v", "c").unwrap(), long());
    assert_eq!(server.client().rows().len(), 1);
}
