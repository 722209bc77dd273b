//! A hierarchy of servers: a parent that is only read and a child whose values lie below its own.

use serde_json::json;

use super::harness::{Client, Server, tuple};

struct Family {
    parent: Server,
    child: Server,
    dir: tempfile::TempDir,
}

fn family() -> Family {
    let dir = tempfile::tempdir().unwrap();
    let parent = Server::start(dir.path().join("parent.sqlite3"));
    let address = parent.address.to_string();
    let child = Server::start_with(dir.path().join("child.sqlite3"), &["--upstream", &address]);
    Family { parent, child, dir }
}

fn get_with_history(client: &mut Client, version: &str, checksum: &str) -> String {
    let mut arguments = tuple(version, checksum);
    arguments["history"] = json!(true);
    client.request(&json!({ "get-pr": arguments })).unwrap()["value"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn the_parents_values_are_used_and_others_lie_below_them() {
    let family = family();
    let (mut parent, mut child_client) = (family.parent.client(), family.child.client());
    assert_eq!(parent.get("v", "p").unwrap(), "0");
    assert_eq!(child_client.get("v", "p").unwrap(), "0");
    assert_eq!(child_client.get("v", "a").unwrap(), "0.0");
    assert_eq!(child_client.get("v", "b").unwrap(), "0.1");
    assert_eq!(get_with_history(&mut child_client, "v", "a"), "0.0");
    assert_eq!(parent.get("v", "q").unwrap(), "1");
    assert_eq!(
        child_client.get("v", "a").unwrap(),
        "1.0",
        "the parent has a newer value"
    );
    assert_eq!(parent.rows().len(), 2, "nothing is written to the parent");
}

#[test]
fn a_package_unknown_to_the_parent_keeps_its_values() {
    let family = family();
    let mut child_client = family.child.client();
    for _ in 0..3 {
        assert_eq!(child_client.get("local", "a").unwrap(), "0");
    }
    assert_eq!(child_client.get("local", "b").unwrap(), "1");
}

#[test]
fn only_unknown_tuples_fail_while_the_parent_is_unreachable() {
    let Family {
        parent,
        child,
        dir: _dir,
    } = family();
    let mut child_client = child.client();
    assert_eq!(child_client.get("v", "a").unwrap(), "0");
    drop(parent);
    assert_eq!(child_client.get("v", "a").unwrap(), "0");
    assert_eq!(get_with_history(&mut child_client, "v", "a"), "0");
    assert!(child_client.get("v", "b").is_err());
    let mut child_client = child.client();
    assert_eq!(
        child_client.request(&json!({"ping": {}})).unwrap(),
        json!({"alive": true})
    );
    assert_eq!(child_client.get("v", "a").unwrap(), "0");
    assert!(child.log().contains("cannot query the upstream server"));
}

#[test]
fn a_grandchilds_values_lie_below_the_childs() {
    let family = family();
    let address = family.child.address.to_string();
    let db = family.dir.path().join("grandchild.sqlite3");
    let grandchild = Server::start_with(&db, &["--upstream", &address]);
    assert_eq!(family.parent.client().get("v", "p").unwrap(), "0");
    assert_eq!(family.child.client().get("v", "a").unwrap(), "0.0");
    assert_eq!(grandchild.client().get("v", "b").unwrap(), "0.0.0");
    assert_eq!(
        grandchild.client().get("v", "a").unwrap(),
        "0.0.1",
        "superseded locally by b"
    );
    assert_eq!(grandchild.client().get("w", "a").unwrap(), "0");
}
