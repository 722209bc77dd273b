//! A server that asks another one.

use std::net::TcpListener;

use serde_json::json;

use super::harness::{Server, database, hash};

#[test]
fn unknown_hashes_are_asked_for_and_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let up = Server::start(directory.path().join("up.db"));
    up.client().report(1, 1).unwrap();
    up.client().report(2, 2).unwrap();
    for scheme in ["", "ws://"] {
        let db = directory.path().join(format!("down{}.db", scheme.len()));
        let address = format!("{scheme}{}", up.address);
        let down = Server::start_with(&db, &["--upstream", &address]);
        let side = Server::start(&db);
        let mut client = down.client();
        assert_eq!(
            client.report(10, 1).unwrap(),
            hash(1),
            "an equivalence of the other server"
        );
        assert_eq!(client.report(11, 11).unwrap(), hash(11));
        client.send("{\"get-stream\": null}").unwrap();
        client.receive().unwrap();
        client
            .send(&format!("m {}\nm {}", hash(2), hash(99)))
            .unwrap();
        assert_eq!(client.receive().unwrap(), hash(2));
        assert_eq!(client.receive().unwrap(), "");
        client.send("END").unwrap();
        client.receive().unwrap();
        client.request(&json!({"backfill-wait": null})).unwrap();
        assert_eq!(side.client().get(2).unwrap(), Some(hash(2)));
        let all = json!({"get": {"method": "m", "taskhash": hash(1), "all": true}});
        assert_eq!(client.request(&all).unwrap()["outhash"], hash(1));
        assert_eq!(side.client().get(1).unwrap(), Some(hash(1)));
        assert_eq!(up.client().get(11).unwrap(), None, "nothing is passed up");
    }
}

#[test]
fn a_server_that_does_not_respond_counts_as_one_that_knows_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap().to_string();
    drop(closed);
    let server = Server::start_with(database(&directory), &["--upstream", &address]);
    let mut client = server.client();
    assert_eq!(client.report(1, 1).unwrap(), hash(1));
    assert_eq!(client.get(2).unwrap(), None);
    server.wait_for_log("cannot ask the upstream server");
}

#[test]
fn a_restarted_server_is_asked_on_a_new_connection() {
    let directory = tempfile::tempdir().unwrap();
    let up = Server::start(directory.path().join("up.db"));
    up.client().report(1, 1).unwrap();
    up.client().report(2, 2).unwrap();
    let address = up.address.clone();
    let down = Server::start_with(database(&directory), &["--upstream", &address]);
    let mut client = down.client();
    assert_eq!(client.get(1).unwrap(), Some(hash(1)));
    drop(up);
    let _up = Server::start_with(directory.path().join("up.db"), &["--listen", &address]);
    assert_eq!(client.get(2).unwrap(), Some(hash(2)));
}
