//! Access rules: writers, readers and the answer for unknown tuples.

use serde_json::json;

use super::harness::{Server, tuple, wait_until};

fn server(arguments: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("prserv.sqlite3");
    assert_eq!(Server::start(&db).client().get("v", "known").unwrap(), "0");
    let server = Server::start_with(&db, arguments);
    (dir, server)
}

#[test]
fn a_reader_gets_recorded_values_and_no_others() {
    for arguments in [["--writers", "10.0.0.0/8"].as_slice(), &["--lockdown"]] {
        let (_dir, server) = server(arguments);
        let mut client = server.client();
        assert_eq!(
            client.request(&json!({"is-readonly": {}})).unwrap(),
            json!({"readonly": true})
        );
        assert_eq!(client.get("v", "known").unwrap(), "0");
        let import =
            json!({"import-one": {"version": "v", "pkgarch": "all", "checksum": "x", "value": 9}});
        assert_eq!(client.request(&import).unwrap(), json!(null));
        let unknown = client.request(&json!({"get-pr": tuple("v", "unknown")}));
        assert!(unknown.is_err(), "{unknown:?}");
        wait_until("the refusal is logged", || {
            server
                .log()
                .contains("a reader requested an unknown tuple client=127.0.0.1")
        });
        assert_eq!(server.client().rows().len(), 1);
    }
}

#[test]
fn a_reader_gets_the_fallback_text_for_unknown_tuples() {
    let (_dir, server) = server(&["--lockdown", "--unknown", "custom"]);
    assert_eq!(server.client().get("v", "unknown").unwrap(), "custom");
    assert_eq!(server.client().get("v", "known").unwrap(), "0");
}

#[test]
fn a_client_of_a_writing_network_may_write() {
    let (_dir, server) = server(&["--writers", "10.0.0.0/8,127.0.0.0/8"]);
    assert_eq!(server.client().get("v", "unknown").unwrap(), "1");
}
