//! The responses to invalid requests: wrong types and sizes, unknown numbers and names, and
//! requests that conflict with the current state. The modules `openapi` and `access` test wrong
//! tokens.

mod machines;
mod projects;

use serde_json::{Value, json};
use tests::api_host::ApiHost;

use super::openapi::{SOURCE, check, operations};
use super::schedules;

const BUILDS: &str = "/api/v1/builds";
const BUILD: &str = "/api/v1/builds/{id}";
const LOG: &str = "/api/v1/builds/{id}/log";
const TIMES: &str = "/api/v1/builds/{id}/log/times";
const CANCEL: &str = "/api/v1/builds/{id}/cancel";
const ARTIFACT: &str = "/api/v1/builds/{id}/artifacts/{name}";
const SOURCES: &str = "/api/v1/sources/{sha256}";
const REPAIR: &str = "/api/v1/doctor/repair";
const PROVENANCE: &str = "/api/v1/builds/{id}/provenance";
const SIGNED: &str = "/api/v1/builds/{id}/provenance/signed";
const RESUME: &str = "/api/v1/builds/{id}/resume";
const FORK: &str = "/api/v1/builds/{id}/fork";
const RELEASE: &str = "/api/v1/builds/{id}/release";
const ATTACH: &str = "/api/v1/builds/{id}/attach";
const CONSOLE: &str = "/api/v1/builds/{id}/console";
const EXEC: &str = "/api/v1/builds/{id}/exec";
const STOP: &str = "/api/v1/builds/{id}/stop";
const COMMANDS: &str = "/api/v1/builds/{id}/commands";
const SOCKET: &str = "/api/v1/builds/{id}/console/ws";
const MACHINE: &str = "/api/v1/machines/{name}/console";
const DRAIN: &str = "/api/v1/drain";
const SCHEDULE: &str = "/api/v1/schedules/{name}";
const RUN: &str = "/api/v1/schedules/{name}/run";
const SECRET: &str = "/api/v1/secrets/{name}";
const TOKENS: &str = "/api/v1/tokens";
const TOKEN: &str = "/api/v1/tokens/{name}";
const CACHE: &str = "/api/v1/caches/{name}";
const PRUNE: &str = "/api/v1/caches/{name}/prune";
const FEED: &str = "/api/v1/feeds/{name}/rebuild";
const ENROL: &str = "/api/v1/controllers/{name}/enrol";
const FORGET: &str = "/api/v1/controllers/{name}/forget";
const NOTIFY: &str = "/api/v1/notify/{name}/test";
const JSON: &str = "application/json";
const TRUE: &str = r#"{"command": ["true"]}"#;

/// An invalid request: its method, its route, a query or a path that replaces the route, the
/// content type, the body, and the status of the response. HERE and NOT stand for the hashes of a
/// known and an unknown source, LONG stands for a long word. Build 1 is queued, and no guest runs.
pub(crate) type InvalidRequest = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
);

/// The invalid requests of all routes but those of schedules and of projects of BitBake.
const REQUESTS: &[InvalidRequest] = &[
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
    ("GET", LOG, "/api/v1/builds/1/log?attempt=3", "", "", 404),
    ("GET", LOG, "/api/v1/builds/1/log?console=7", "", "", 400),
    ("GET", TIMES, "/api/v1/builds/7/log/times", "", "", 404),
    (
        "GET",
        TIMES,
        "/api/v1/builds/1/log/times?attempt=x",
        "",
        "",
        400,
    ),
    ("GET", SOURCES, "/api/v1/sources/NOT", "", "", 404),
    ("GET", SOURCES, "/api/v1/sources/0", "", "", 400),
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
    ("PUT", SOURCES, "/api/v1/sources/0", "", "x", 400),
    ("PUT", SOURCES, "/api/v1/sources/NOT", "", "x", 400),
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
    (
        "GET",
        SIGNED,
        "/api/v1/builds/x/provenance/signed",
        "",
        "",
        400,
    ),
    (
        "GET",
        SIGNED,
        "/api/v1/builds/7/provenance/signed",
        "",
        "",
        404,
    ),
    (
        "GET",
        SIGNED,
        "/api/v1/builds/1/provenance/signed",
        "",
        "",
        404,
    ),
    ("POST", RESUME, "/api/v1/builds/x/resume", "", "", 400),
    ("POST", RESUME, "/api/v1/builds/7/resume", "", "", 404),
    ("POST", RESUME, "/api/v1/builds/1/resume", "", "", 409),
    (
        "POST",
        FORK,
        "/api/v1/builds/x/fork",
        JSON,
        r#"{"copies": 1}"#,
        400,
    ),
    (
        "POST",
        FORK,
        "/api/v1/builds/7/fork",
        JSON,
        r#"{"copies": 1}"#,
        404,
    ),
    (
        "POST",
        FORK,
        "/api/v1/builds/1/fork",
        JSON,
        r#"{"copies": 1}"#,
        409,
    ),
    (
        "POST",
        FORK,
        "/api/v1/builds/1/fork",
        "",
        r#"{"copies": 1}"#,
        415,
    ),
    (
        "POST",
        FORK,
        "/api/v1/builds/1/fork",
        JSON,
        r#"{"copies": 0}"#,
        422,
    ),
    (
        "POST",
        FORK,
        "/api/v1/builds/1/fork",
        JSON,
        r#"{"copies": 65}"#,
        422,
    ),
    ("POST", FORK, "/api/v1/builds/1/fork", JSON, "{}", 422),
    (
        "POST",
        FORK,
        "/api/v1/builds/1/fork",
        JSON,
        r#"{"copies": "LONG"}"#,
        413,
    ),
    ("POST", RELEASE, "/api/v1/builds/x/release", "", "", 400),
    ("POST", RELEASE, "/api/v1/builds/7/release", "", "", 404),
    ("POST", RELEASE, "/api/v1/builds/1/release", "", "", 409),
    ("POST", ATTACH, "/api/v1/builds/x/attach", "", "", 400),
    ("POST", ATTACH, "/api/v1/builds/7/attach", "", "", 404),
    ("POST", ATTACH, "/api/v1/builds/1/attach", "", "", 400),
    ("POST", EXEC, "/api/v1/builds/x/exec", JSON, TRUE, 400),
    ("POST", EXEC, "/api/v1/builds/7/exec", JSON, TRUE, 404),
    ("POST", EXEC, "/api/v1/builds/1/exec", JSON, TRUE, 409),
    ("POST", EXEC, "/api/v1/builds/1/exec", "", TRUE, 415),
    ("POST", EXEC, "/api/v1/builds/1/exec", JSON, "{}", 422),
    ("POST", STOP, "/api/v1/builds/x/stop", "", "", 400),
    ("POST", STOP, "/api/v1/builds/7/stop", "", "", 404),
    ("POST", STOP, "/api/v1/builds/1/stop", "", "", 409),
    ("GET", COMMANDS, "/api/v1/builds/x/commands", "", "", 400),
    ("GET", COMMANDS, "/api/v1/builds/7/commands", "", "", 404),
    ("GET", CONSOLE, "/api/v1/builds/x/console", "", "", 400),
    ("GET", CONSOLE, "/api/v1/builds/7/console", "", "", 404),
    ("GET", CONSOLE, "/api/v1/builds/1/console", "", "", 409),
    ("GET", SOCKET, "/api/v1/builds/x/console/ws", "", "", 400),
    ("GET", SOCKET, "/api/v1/builds/7/console/ws", "", "", 404),
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
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}], "secrets": ["key"]}"#,
        404,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}], "secrets": ["key", "key"]}"#,
        400,
    ),
    (
        "POST",
        BUILDS,
        "",
        JSON,
        r#"{"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}], "secrets": ["../key"]}"#,
        422,
    ),
    ("PUT", SECRET, "/api/v1/secrets/..%2Fx", JSON, "{}", 400),
    ("PUT", SECRET, "/api/v1/secrets/x", JSON, "{", 400),
    ("PUT", SECRET, "/api/v1/secrets/x", "", "{}", 415),
    ("PUT", SECRET, "/api/v1/secrets/x", JSON, "{}", 422),
    (
        "PUT",
        SECRET,
        "/api/v1/secrets/x",
        JSON,
        r#"{"value": "c2hvcnQ="}"#,
        422,
    ),
    (
        "PUT",
        SECRET,
        "/api/v1/secrets/x",
        JSON,
        r#"{"value": "no base64!"}"#,
        422,
    ),
    (
        "PUT",
        SECRET,
        "/api/v1/secrets/x",
        JSON,
        r#"{"value": "LONG"}"#,
        413,
    ),
    ("DELETE", SECRET, "/api/v1/secrets/..%2Fx", "", "", 400),
    ("POST", TOKENS, "", JSON, "{", 400),
    ("POST", TOKENS, "", "", "{}", 415),
    ("POST", TOKENS, "", JSON, "{}", 422),
    ("POST", TOKENS, "", JSON, r#"{"name": "a b"}"#, 422),
    (
        "POST",
        TOKENS,
        "",
        JSON,
        r#"{"name": "a", "scope": "root"}"#,
        422,
    ),
    ("POST", TOKENS, "", JSON, r#"{"name": "admin-1"}"#, 409),
    ("DELETE", TOKEN, "/api/v1/tokens/a%20b", "", "", 400),
    ("DELETE", TOKEN, "/api/v1/tokens/x", "", "", 404),
    ("DELETE", SECRET, "/api/v1/secrets/x", "", "", 404),
    ("GET", CACHE, "/api/v1/caches/..%2Fx", "", "", 400),
    ("GET", CACHE, "/api/v1/caches/x", "", "", 404),
    ("GET", CACHE, "/api/v1/caches/one?limit=0", "", "", 400),
    ("GET", CACHE, "/api/v1/caches/one?limit=10001", "", "", 400),
    ("GET", CACHE, "/api/v1/caches/one?before=x", "", "", 400),
    ("DELETE", CACHE, "/api/v1/caches/..%2Fx", "", "", 400),
    ("DELETE", CACHE, "/api/v1/caches/x", "", "", 404),
    ("DELETE", CACHE, "/api/v1/caches/one?build=x", "", "", 400),
    (
        "POST",
        PRUNE,
        "/api/v1/caches/..%2Fx/prune",
        JSON,
        "{}",
        400,
    ),
    ("POST", PRUNE, "/api/v1/caches/x/prune", JSON, "{}", 404),
    ("POST", PRUNE, "/api/v1/caches/one/prune", "", "{}", 415),
    (
        "POST",
        PRUNE,
        "/api/v1/caches/one/prune",
        JSON,
        r#"{"mib": 1}"#,
        422,
    ),
    (
        "POST",
        PRUNE,
        "/api/v1/caches/one/prune",
        JSON,
        r#"{"x": "LONG"}"#,
        413,
    ),
    ("DELETE", SCHEDULE, "/api/v1/schedules/..%2Fx", "", "", 400),
    ("POST", RUN, "/api/v1/schedules/..%2Fx/run", "", "", 400),
    ("POST", ENROL, "/api/v1/controllers/x/enrol", "", "", 400),
    (
        "POST",
        ENROL,
        "/api/v1/controllers/x/enrol",
        JSON,
        r#"{"token": "t"}"#,
        404,
    ),
    (
        "POST",
        FORGET,
        "/api/v1/controllers/..%2Fx/forget",
        JSON,
        "{}",
        400,
    ),
    (
        "POST",
        FORGET,
        "/api/v1/controllers/x/forget",
        JSON,
        "{}",
        404,
    ),
    (
        "POST",
        FORGET,
        "/api/v1/controllers/x/forget",
        JSON,
        r#"{"colour": 1}"#,
        422,
    ),
    (
        "POST",
        FORGET,
        "/api/v1/controllers/x/forget",
        "",
        "{}",
        415,
    ),
    (
        "POST",
        FORGET,
        "/api/v1/controllers/x/forget",
        JSON,
        r#"{"x": "LONG"}"#,
        413,
    ),
    ("POST", FEED, "/api/v1/feeds/..%2Fx/rebuild", "", "", 400),
    ("POST", FEED, "/api/v1/feeds/x/rebuild", "", "", 404),
    ("POST", NOTIFY, "/api/v1/notify/..%2Fx/test", "", "", 400),
    ("POST", NOTIFY, "/api/v1/notify/x/test", "", "", 404),
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
fn invalid_requests_are_refused_with_a_reason() {
    assert_all_refused(REQUESTS);
    assert_all_refused(projects::REQUESTS);
    assert_all_refused(machines::REQUESTS);
}

#[test]
fn every_route_with_parameters_has_an_invalid_request_for_each_status() {
    let is_tested = |method: &str, route: &str, status: u16| {
        let requests = REQUESTS.iter().chain(schedules::REQUESTS);
        let requests = requests.chain(projects::REQUESTS).chain(machines::REQUESTS);
        let mut requests = requests.filter(|row| (row.0, row.1) == (method, route));
        requests.any(|row| row.5 == status)
    };
    for (method, route, operation) in operations() {
        let is_path_or_query = |it: &Value| it["in"] != "header";
        let parameters = operation["parameters"].as_array();
        let has_parameters = operation["requestBody"].is_object()
            || parameters.is_some_and(|all| all.iter().any(is_path_or_query));
        if !has_parameters {
            continue;
        }
        for status in [400, 404, 415, 422] {
            let is_described = operation["responses"][status.to_string()].is_object();
            assert!(
                !is_described || is_tested(&method, &route, status),
                "no invalid request of {method} {route} leads to {status}"
            );
        }
    }
}

/// Checks that the requests are refused with the expected status, as the API is described.
pub(crate) fn assert_all_refused(requests: &[InvalidRequest]) {
    let host = ApiHost::new("http.request_kib_max = 1\nhttp.requests_per_second_max = 0\n");
    host.allow(&[("admin", "a")]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("a").body("source").send().unwrap();
    let build = json!({"machine": "linux", "sources": [{"name": "a", "sha256": SOURCE}]});
    let submit = host.remote("POST", BUILDS).bearer_auth("a").json(&build);
    assert_eq!(submit.send().unwrap().status(), 201);
    let (long, unknown) = ("x".repeat(2000), "0".repeat(64));
    let fill = |text: &str| {
        text.replace("HERE", SOURCE)
            .replace("NOT", &unknown)
            .replace("LONG", &long)
    };
    for (method, route, path, content_type, body, status) in requests {
        let path = match path.chars().next() {
            Some('/') => fill(path),
            _ => format!("{route}{path}"),
        };
        let mut request = host.remote(method, &path).bearer_auth("a").body(fill(body));
        if !content_type.is_empty() {
            request = request.header("content-type", *content_type);
        }
        let problem = check(method, route, request.send().unwrap());
        assert_eq!(
            problem["status"], *status,
            "{method} {path} {body}: {problem}"
        );
    }
}
