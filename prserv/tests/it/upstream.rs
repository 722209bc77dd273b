//! A hierarchy of servers: a parent that is read only, and a child with values below its own.

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

fn with_history(client: &mut Client, version: &str, checksum: &str) -> String {
    let mut arguments = tuple(version, checksum);
    arguments["history"] = json!(true);
    client.ask(&json!({ "get-pr": arguments })).unwrap()["value"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn what_the_parent_knows_comes_from_it_and_the_rest_lies_below() {
    let family = family();
    let (mut above, mut here) = (family.parent.client(), family.child.client());
    assert_eq!(above.get("v", "p").unwrap(), "0");
    assert_eq!(here.get("v", "p").unwrap(), "0");
    assert_eq!(here.get("v", "a").unwrap(), "0.0");
    assert_eq!(here.get("v", "b").unwrap(), "0.1");
    assert_eq!(with_history(&mut here, "v", "a"), "0.0");
    assert_eq!(above.get("v", "q").unwrap(), "1");
    assert_eq!(here.get("v", "a").unwrap(), "1.0", "the parent has gone on");
    assert_eq!(above.rows().len(), 2, "nothing is written to the parent");
}

#[test]
fn a_package_that_only_the_child_knows_is_served_again_and_again() {
    let family = family();
    let mut here = family.child.client();
    for _ in 0..3 {
        assert_eq!(here.get("local", "a").unwrap(), "0");
    }
    assert_eq!(here.get("local", "b").unwrap(), "1");
}

#[test]
fn a_parent_that_is_down_stops_only_what_is_unknown() {
    let Family {
        parent,
        child,
        dir: _dir,
    } = family();
    let mut here = child.client();
    assert_eq!(here.get("v", "a").unwrap(), "0");
    drop(parent);
    assert_eq!(here.get("v", "a").unwrap(), "0");
    assert_eq!(with_history(&mut here, "v", "a"), "0");
    assert!(here.get("v", "b").is_err());
    let mut here = child.client();
    assert_eq!(
        here.ask(&json!({"ping": {}})).unwrap(),
        json!({"alive": true})
    );
    assert_eq!(here.get("v", "a").unwrap(), "0");
    assert!(child.log().contains("the upstream server fails"));
}

#[test]
fn grandchildren_have_values_below_the_childs() {
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
        "overtaken here by b"
    );
    assert_eq!(grandchild.client().get("w", "a").unwrap(), "0");
}
