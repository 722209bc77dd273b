//! What a client is told that asks for nonsense: types, sizes, numbers that nothing has,
//! and what cannot be done as things stand. Wrong tokens: see `schema` and `access`.

use serde_json::{Value, json};
use tests::api_host::ApiHost;

use super::openapi::{SOURCE, check, operations};
use super::schedules;

const BUILDS: &str = "/api/v1/builds";
const BUILD: &str = "/api/v1/builds/{id}";
const LOG: &str = "/api/v1/builds/{id}/log";
const CANCEL: &str = "/api/v1/builds/{id}/cancel";
const ARTIFACT: &str = "/api/v1/builds/{id}/artifacts/{name}";
const KEPT: &str = "/api/v1/sources/{sha256}";
const REPAIR: &str = "/api/v1/doctor/repair";
const PROVENANCE: &str = "/api/v1/builds/{id}/provenance";
const RESUME: &str = "/api/v1/builds/{id}/resume";
const RELEASE: &str = "/api/v1/builds/{id}/release";
const ATTACH: &str = "/api/v1/builds/{id}/attach";
const CONSOLE: &str = "/api/v1/builds/{id}/console";
const MACHINE: &str = "/api/v1/machines/{name}/console";
const DRAIN: &str = "/api/v1/drain";
const SCHEDULE: &str = "/api/v1/schedules/{name}";
const RUN: &str = "/api/v1/schedules/{name}/run";
const JSON: &str = "application/json";

/// A request that makes no sense: method, route, what comes after the route or replaces
/// it, type and body, and the status of the answer. HERE and NOT are the hashes of a
/// source that is here and of one that is not, LONG is a long word. Build 1 waits; no
/// guest runs.
pub(crate) type Nonsense = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
);

/// What is wrong with requests about everything but schedules.
const NONSENSE: &[Nonsense] = &[
    ("GET", BUILDS, "?count=x", "", "", 400),
    ("GET", BUILDS, "?count=-1", "", "", 400),
    ("GET", BUILDS, "?before=x", "", "", 400),
    ("GET", BUILDS, "?colour=red", "", "", 400),
    ("GET", BUILD, "/api/v1/builds/x", "", "", 400),
    ("GET", BUILD, "/api/v1/builds/-1", "", "", 400),
    (
        "GET",
        BUILD,
        "/api/v1/builds/99999999999999999999",
        "",
        "",
        400,
    ),
    ("GET", BUILD, "/api/v1/builds/7", "", "", 404),
    ("GET", BUILD, "/api/v1/builds/0", "", "", 404),
    ("GET", LOG, "/api/v1/builds/7/log", "", "", 404),
    ("GET", LOG, "/api/v1/builds/1/log?offset=x", "", "", 400),
    ("GET", LOG, "/api/v1/builds/1/log?follow=maybe", "", "", 400),
    (
        "GET",
        ARTIFACT,
        "/api/v1/builds/1/artifacts/..%2Fx",
        "",
        "",
        400,
    ),
    ("POST", BUILDS, "", "text/plain", "{}", 415),
    ("POST", BUILDS, "", "", "{}", 415),
    ("POST", BUILDS, "", JSON, "{", 400),
    ("POST", BUILDS, "", JSON, "[]", 422),
    ("POST", BUILDS, "", JSON, "{}", 422),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": 1, "sources": []}"#,
        422,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": []}"#,
        400,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "../x", "sources": []}"#,
        422,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [], "colour": 1}"#,
        422,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "0"}]}"#,
        422,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "NOT"}]}"#,
        409,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "other", "sources": [{"name": "a", "sha256": "HERE"}]}"#,
        404,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}, {"name": "a", "sha256": "HERE"}]}"#,
        400,
    ),
    ("POST", BUILDS, "", JSON, r#"{"machine": "LONG"}"#, 413),
    ("POST", CANCEL, "/api/v1/builds/7/cancel", "", "", 404),
    ("POST", CANCEL, "/api/v1/builds/x/cancel", "", "", 400),
    ("PUT", KEPT, "/api/v1/sources/0", "", "x", 400),
    ("PUT", KEPT, "/api/v1/sources/NOT", "", "x", 400),
    ("POST", REPAIR, "", JSON, "7", 422),
    ("POST", REPAIR, "", "", "[]", 415),
    ("GET", BUILDS, "?from=x", "", "", 400),
    ("GET", BUILDS, "?sort=colour", "", "", 400),
    ("GET", BUILDS, "?since=yesterday", "", "", 400),
    ("GET", BUILDS, "?state=asleep", "", "", 400),
    ("GET", BUILDS, "?submitter=", "", "", 400),
    ("GET", LOG, "/api/v1/builds/x/log", "", "", 400),
    ("GET", LOG, "/api/v1/builds/7/log", "", "", 404),
    (
        "GET",
        PROVENANCE,
        "/api/v1/builds/x/provenance",
        "",
        "",
        400,
    ),
    (
        "GET",
        PROVENANCE,
        "/api/v1/builds/7/provenance",
        "",
        "",
        404,
    ),
    (
        "GET",
        PROVENANCE,
        "/api/v1/builds/1/provenance",
        "",
        "",
        404,
    ),
    ("POST", RESUME, "/api/v1/builds/x/resume", "", "", 400),
    ("POST", RESUME, "/api/v1/builds/7/resume", "", "", 404),
    ("POST", RESUME, "/api/v1/builds/1/resume", "", "", 409),
    ("POST", RELEASE, "/api/v1/builds/x/release", "", "", 400),
    ("POST", RELEASE, "/api/v1/builds/7/release", "", "", 404),
    ("POST", RELEASE, "/api/v1/builds/1/release", "", "", 409),
    ("POST", ATTACH, "/api/v1/builds/x/attach", "", "", 400),
    ("POST", ATTACH, "/api/v1/builds/7/attach", "", "", 404),
    ("POST", ATTACH, "/api/v1/builds/1/attach", "", "", 400),
    ("GET", CONSOLE, "/api/v1/builds/x/console", "", "", 400),
    ("GET", CONSOLE, "/api/v1/builds/7/console", "", "", 404),
    ("GET", CONSOLE, "/api/v1/builds/1/console", "", "", 409),
    ("POST", CONSOLE, "/api/v1/builds/x/console", "", "", 400),
    ("POST", CONSOLE, "/api/v1/builds/7/console", "", "", 404),
    ("POST", CONSOLE, "/api/v1/builds/1/console", "", "", 409),
    ("GET", ARTIFACT, "/api/v1/builds/1/artifacts/x", "", "", 404),
    ("DELETE", BUILD, "/api/v1/builds/x", "", "", 400),
    ("DELETE", BUILD, "/api/v1/builds/7", "", "", 404),
    ("DELETE", BUILD, "/api/v1/builds/1", "", "", 409),
    (
        "GET",
        MACHINE,
        "/api/v1/machines/..%2Fx/console",
        "",
        "",
        400,
    ),
    (
        "GET",
        MACHINE,
        "/api/v1/machines/linux/console",
        "",
        "",
        404,
    ),
    (
        "POST",
        MACHINE,
        "/api/v1/machines/..%2Fx/console",
        "",
        "",
        400,
    ),
    (
        "POST",
        MACHINE,
        "/api/v1/machines/linux/console",
        "",
        "",
        404,
    ),
    ("DELETE", SCHEDULE, "/api/v1/schedules/..%2Fx", "", "", 400),
    ("POST", RUN, "/api/v1/schedules/..%2Fx/run", "", "", 400),
    ("POST", REPAIR, "", JSON, "[", 400),
    ("POST", DRAIN, "", "", "{}", 415),
    ("POST", DRAIN, "", JSON, "{", 400),
    ("POST", DRAIN, "", JSON, "7", 422),
    (
        "POST",
        DRAIN,
        "",
        JSON,
        r#"{"reason": "x", "colour": 1}"#,
        422,
    ),
    ("POST", DRAIN, "", JSON, r#"{"reason": "two\nlines"}"#, 400),
    ("POST", DRAIN, "", JSON, r#"{"reason": "LONG"}"#, 413),
];

#[test]
fn nonsense_is_refused_with_a_reason() {
    refuse_all(NONSENSE);
}

#[test]
fn every_route_that_takes_something_is_asked_for_nonsense() {
    let asked = |method: &str, route: &str, status: u16| {
        let rows = NONSENSE.iter().chain(schedules::NONSENSE);
        let mut rows = rows.filter(|row| (row.0, row.1) == (method, route));
        rows.any(|row| row.5 == status)
    };
    for (method, route, operation) in operations() {
        let takes = |it: &Value| it["in"] != "header";
        let parameters = operation["parameters"].as_array();
        let takes_something = operation["requestBody"].is_object()
            || parameters.is_some_and(|all| all.iter().any(takes));
        if !takes_something {
            continue;
        }
        for status in [400, 404, 415, 422] {
            let described = operation["responses"][status.to_string()].is_object();
            assert!(
                !described || asked(&method, &route, status),
                "no nonsense is asked of {method} {route} that is answered with {status}"
            );
        }
    }
}

/// Checks that all of it is refused as it says, and as it is described.
pub(crate) fn refuse_all(nonsense: &[Nonsense]) {
    let host = ApiHost::new("http.request_kib_max = 1\nhttp.requests_per_second_max = 0\n");
    host.allow(&[("admin", "a")]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("a").body("source").send().unwrap();
    let build = json!({"machine": "linux", "sources": [{"name": "a", "sha256": SOURCE}]});
    let submit = host.remote("POST", BUILDS).bearer_auth("a").json(&build);
    assert_eq!(submit.send().unwrap().status(), 201);
    let (word, not) = ("x".repeat(2000), "0".repeat(64));
    let fill = |text: &str| {
        text.replace("HERE", SOURCE)
            .replace("NOT", &not)
            .replace("LONG", &word)
    };
    for (method, route, path, kind, body, status) in nonsense {
        let path = match path.chars().next() {
            Some('/') => fill(path),
            _ => format!("{route}{path}"),
        };
        let mut request = host.remote(method, &path).bearer_auth("a").body(fill(body));
        if !kind.is_empty() {
            request = request.header("content-type", *kind);
        }
        let problem = check(method, route, request.send().unwrap());
        assert_eq!(
            problem["status"], *status,
            "{method} {path} {body}: {problem}"
        );
    }
}
