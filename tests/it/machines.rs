//! Machines at the API: their revisions and images, and the changes of an administrator.

use serde_json::{Value, json};
use tests::api_host::ApiHost;

use super::openapi::check;

const MACHINE: &str = "/api/v1/machines/{name}";

fn ask(host: &ApiHost, method: &str, action: &str, body: &Value) -> (u16, Value) {
    let route = match action.split('?').next().unwrap() {
        "" => MACHINE.to_owned(),
        action => format!("{MACHINE}/{action}"),
    };
    let path = match action {
        "" => "/api/v1/machines/linux".to_owned(),
        action => format!("/api/v1/machines/linux/{action}"),
    };
    let request = host.remote(method, &path).bearer_auth("a");
    let request = if body.is_null() {
        request
    } else {
        request.json(body)
    };
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    (status, check(method, &route, response))
}

/// Returns a host whose machine `linux` has the revisions 1 and 2.
fn host() -> ApiHost {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    host.allow(&[("admin", "a")]);
    host.upgrade_machine();
    host
}

fn current(host: &ApiHost) -> Value {
    ask(host, "GET", "", &Value::Null).1["current"].clone()
}

#[test]
fn a_machine_is_described_with_its_revisions() {
    let host = host();
    let list = host
        .remote("GET", "/api/v1/machines")
        .bearer_auth("a")
        .send()
        .unwrap();
    let list = check("GET", "/api/v1/machines", list);
    assert_eq!(list[0]["name"], "linux");
    assert_eq!(list[0]["revision_count"], 2);
    let (status, machine) = ask(&host, "GET", "", &Value::Null);
    assert_eq!(status, 200);
    assert_eq!(machine["current"], 2);
    assert_eq!(machine["revisions"][0]["state"], "complete");
    assert_eq!(machine["revisions"][1]["state"], "current");
    let missing = host
        .remote("GET", "/api/v1/machines/none")
        .bearer_auth("a")
        .send()
        .unwrap();
    assert_eq!(missing.status(), 404);
    check("GET", MACHINE, missing);
}

#[test]
fn a_dry_run_changes_nothing_and_a_rollback_makes_the_older_revision_current() {
    let host = host();
    let (status, plan) = ask(&host, "POST", "rollback", &json!({"dry_run": true}));
    assert_eq!(
        (status, &plan["steps"][0]),
        (200, &json!("make revision 1 of linux current"))
    );
    assert_eq!(current(&host), 2);
    let (_, done) = ask(&host, "POST", "rollback", &json!({}));
    assert_eq!(done["steps"][0], "revision 1 is now current");
    assert_eq!(current(&host), 1);
    assert_eq!(ask(&host, "POST", "rollback", &json!({})).0, 404);
    assert_eq!(
        ask(&host, "POST", "rollback", &json!({"revision": 2})).0,
        200
    );
    assert_eq!(current(&host), 2);
    assert_eq!(
        ask(&host, "POST", "rollback", &json!({"revision": 9})).0,
        404
    );
    assert_eq!(ask(&host, "POST", "promote", &json!({})).0, 404);
    assert_eq!(ask(&host, "POST", "reject", &json!({})).0, 404);
    assert_eq!(ask(&host, "POST", "pin", &json!({})).0, 422);
}

#[test]
fn a_pinned_revision_is_not_pruned() {
    let host = host();
    let pin = json!({"revision": 1});
    assert_eq!(
        ask(&host, "POST", "pin", &pin).1["steps"][0],
        "pinned revision 1"
    );
    assert_eq!(
        ask(&host, "GET", "", &Value::Null).1["revisions"][0]["pinned"],
        true
    );
    let prune = json!({"keep": 1});
    assert_eq!(ask(&host, "POST", "prune", &prune).1["steps"], json!([]));
    ask(&host, "POST", "unpin", &pin);
    let plan = ask(&host, "POST", "prune", &json!({"keep": 1, "dry_run": true})).1;
    assert_eq!(plan["steps"], json!(["delete revision 1 of linux"]));
    assert_eq!(ask(&host, "GET", "", &Value::Null).1["revision_count"], 2);
    let done = ask(&host, "POST", "prune", &prune).1;
    assert_eq!(done["steps"], json!(["deleted revision 1"]));
    assert_eq!(ask(&host, "GET", "", &Value::Null).1["revision_count"], 1);
}
