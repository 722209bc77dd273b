//! The conformance of the API to its description: routes, scopes and bodies.

use std::fs;
use std::time::Duration;

use agent::api::OPENAPI;
use config::BuildId;
use config::builds::State;
use config::task::Outcome;
use jiff::Timestamp;
use reqwest::blocking::Response;
use serde_json::{Value, json};
use server_tests::Description;
use tests::api_host::ApiHost;

pub(crate) const SOURCE: &str = "41cf6794ba4200b839c53531555f0f3998df4cbb01a4d5cb0b94e3ca5e23947d";

fn description() -> Description {
    Description::parse(OPENAPI)
}

/// Returns the operations of the description: method, path and definition.
pub(crate) fn operations() -> Vec<(String, String, Value)> {
    let operations = description().operations().into_iter();
    let operations = operations.map(|it| (it.method, it.route, it.definition));
    operations.collect()
}

/// Checks a response against the description, and returns its body.
pub(crate) fn check(method: &str, route: &str, response: Response) -> Value {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type");
    let content_type = content_type.map(|it| it.to_str().unwrap().to_owned());
    let description = description();
    // The reason of an answer that is not described is shown.
    let is_read = description.has_body(method, route, status) || status >= 400;
    let body = if is_read {
        response.text().unwrap()
    } else {
        String::new()
    };
    description.check(method, route, status, content_type.as_deref(), &body)
}

#[test]
fn the_description_has_exactly_the_routes_of_the_api() {
    let code = include_str!("../../agent/src/api.rs");
    let (_, routes) = code.split_once("fn routes(").unwrap();
    description().assert_routes(routes);
    description().assert_described();
}

#[test]
fn every_route_requires_the_described_scope_and_refuses_other_methods() {
    let host = ApiHost::new("http.requests_per_second_max = 0\n");
    let scopes = ["read", "submit", "admin"];
    host.allow(&scopes.map(|scope| (scope, scope)));
    for (method, route, operation) in operations() {
        let needed = operation["security"][0]["token"][0].as_str();
        let path = route.replace("{id}", "7").replace("{name}", "x");
        for (rank, scope) in scopes.iter().enumerate() {
            if route == "/api/v1/events" {
                continue;
            }
            let request = host.remote(&method, &path).bearer_auth(scope);
            let status = request.send().unwrap().status().as_u16();
            let is_allowed = needed.is_none_or(|needed| {
                rank >= scopes.iter().position(|scope| *scope == needed).unwrap()
            });
            assert_eq!(
                status != 403,
                is_allowed,
                "{method} {route} with {scope}: {status}"
            );
        }
        let anonymous = host.remote(&method, &path).send().unwrap().status();
        assert_eq!(
            anonymous == 401,
            needed.is_some(),
            "{method} {route}: {anonymous}"
        );
        let other = host.remote("PATCH", &path).bearer_auth("admin");
        let other = other.send().unwrap();
        let allow = other.headers()["allow"].to_str().unwrap().to_owned();
        assert!(allow.contains(&method), "{route}: {allow}");
        assert_eq!(other.status(), 405, "{route}");
        assert_eq!(other.headers()["content-type"], "application/problem+json");
    }
    let unknown = host.remote("GET", "/api/v1/unknown").send().unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(
        unknown.headers()["content-type"],
        "application/problem+json"
    );
}

#[test]
fn responses_conform_to_their_schemas() {
    let host = ApiHost::new("");
    host.allow(&[("admin", "a")]);
    let ask = |method: &str, route: &str, path: &str, body: Option<&Value>| {
        let mut request = host.remote(method, path).bearer_auth("a");
        if let Some(body) = body {
            request = request.json(body);
        }
        check(method, route, request.send().unwrap())
    };
    let sources = "/api/v1/sources/{sha256}";
    for status in [201, 200] {
        let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
        let put = put.bearer_auth("a").body("source").send().unwrap();
        assert_eq!(put.status(), status, "{}", put.text().unwrap());
    }
    ask("PUT", sources, &format!("/api/v1/sources/{SOURCE}"), None);
    let body = json!({"machine": "linux", "sources": [{"name": "a.tar", "sha256": SOURCE}]});
    let build = ask("POST", "/api/v1/builds", "/api/v1/builds", Some(&body));
    assert_eq!(
        (&build["id"], &build["submitter"]),
        (&json!(1), &json!("token:admin-1"))
    );
    let list = ask("GET", "/api/v1/builds", "/api/v1/builds", None);
    assert_eq!(list.as_array().unwrap().len(), 1);
    let route = "/api/v1/builds/{id}";
    ask("GET", route, "/api/v1/builds/1", None);
    ask("GET", route, "/api/v1/builds/2", None);
    ask("GET", &format!("{route}/log"), "/api/v1/builds/1/log", None);
    let artifact = format!("{route}/artifacts/{{name}}");
    ask("GET", &artifact, "/api/v1/builds/1/artifacts/x", None);
    let provenance = format!("{route}/provenance");
    ask("GET", &provenance, "/api/v1/builds/1/provenance", None);
    let cancel = format!("{route}/cancel");
    let done = ask("POST", &cancel, "/api/v1/builds/1/cancel", None);
    assert_eq!(done["outcome"], "abort");
    ask("POST", &cancel, "/api/v1/builds/1/cancel", None);
    ask("GET", route, "/api/v1/builds/1", None);
    for path in [
        "/api/v1/status",
        "/api/v1/doctor",
        "/api/v1/openapi.json",
        "/metrics",
    ] {
        ask("GET", path, path, None);
    }
    let repair = "/api/v1/doctor/repair";
    ask("POST", repair, repair, Some(&json!([])));
    let drain = "/api/v1/drain";
    ask("POST", drain, drain, Some(&json!({"reason": "new disks"})));
    let waiting = ask("POST", "/api/v1/builds", "/api/v1/builds", Some(&body));
    ask("GET", "/api/v1/queue", "/api/v1/queue?forecast=true", None);
    let queue = ask("GET", "/api/v1/queue", "/api/v1/queue", None);
    assert_eq!(queue["drained"]["reason"], "new disks");
    assert_eq!(queue["waiting"][0]["build"], waiting["id"]);
    ask("POST", "/api/v1/undrain", "/api/v1/undrain", None);
}

#[test]
fn requests_with_the_same_idempotency_key_submit_one_build() {
    let host = ApiHost::new("");
    host.allow(&[("submit", "s"), ("submit", "other")]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("s").body("source").send().unwrap();
    let ask = |token: &str, key: &str, name: &str| {
        let body = json!({"machine": "linux", "sources": [{"name": name, "sha256": SOURCE}]});
        let request = host.remote("POST", "/api/v1/builds").bearer_auth(token);
        let request = request.header("idempotency-key", key).json(&body);
        let response = request.send().unwrap();
        let status = response.status().as_u16();
        let body = check("POST", "/api/v1/builds", response);
        (status, body["id"].as_u64())
    };
    assert_eq!(ask("s", "k", "a"), (201, Some(1)));
    assert_eq!(ask("s", "k", "a"), (200, Some(1)));
    assert_eq!(ask("s", "k", "b"), (422, None));
    assert_eq!(ask("s", "l", "b"), (201, Some(2)));
    assert_eq!(ask("other", "k", "a"), (201, Some(3)));
    assert_eq!(ask("s", &"k".repeat(256), "a"), (400, None));
    // The response is replayed although the machine and the source have been deleted.
    let linux = "linux".parse().unwrap();
    let volume = host.host.volumes.iter().next().unwrap();
    volume.delete(&linux, Duration::ZERO, false).unwrap();
    fs::remove_file(host.path("state/sources").join(SOURCE)).unwrap();
    assert_eq!(ask("s", "k", "a"), (200, Some(1)));
    assert_eq!(ask("s", "k", "b"), (422, None));
    assert_eq!(ask("s", "new", "a"), (404, None));
    let mut build = host
        .block_on(host.host.records.get(BuildId(1)))
        .unwrap()
        .unwrap();
    build.enter(State::Finished, Timestamp::now()).unwrap();
    build.outcome = Some(Outcome::Success);
    host.block_on(host.host.records.save(&mut build)).unwrap();
    host.block_on(host.host.records.delete(build.id)).unwrap();
    assert_eq!(ask("s", "k", "a"), (409, None));
}
