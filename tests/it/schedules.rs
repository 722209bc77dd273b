//! Schedules over HTTP and by `machinectl`.

use serde_json::{Value, json};
use tests::api_host::ApiHost;
use tests::hosts::{CommandOutput, run};

use super::invalid_requests::{InvalidRequest, assert_all_refused};
use super::openapi::{SOURCE, check};

const SCHEDULES: &str = "/api/v1/schedules";
const SCHEDULE: &str = "/api/v1/schedules/{name}";
const RUN: &str = "/api/v1/schedules/{name}/run";
const JSON: &str = "application/json";

/// Returns a host with a source and with tokens for submitters and administrators.
fn host() -> ApiHost {
    let host = ApiHost::new("http.request_kib_max = 1\nhttp.requests_per_second_max = 0\n");
    host.allow(&[("submit", "s"), ("admin", "a")]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("s").body("source").send().unwrap();
    host
}

/// Sends a request and checks the response against the description. Returns its body, with the
/// status as `http_status`.
fn send(host: &ApiHost, method: &str, route: &str, name: &str, body: Option<&Value>) -> Value {
    let path = route.replace("{name}", name);
    let mut request = host.remote(method, &path).bearer_auth("s");
    if let Some(body) = body {
        request = request.json(body);
    }
    let response = request.send().unwrap();
    let status = response.status().as_u16();
    let mut body = check(method, route, response);
    if let Some(object) = body.as_object_mut() {
        object.insert("http_status".into(), status.into());
    }
    body
}

fn nightly() -> Value {
    let build = json!({"machine": "linux", "sources": [{"name": "a.tar", "sha256": SOURCE}]});
    json!({"name": "nightly", "timing": {"cron": {"pattern": "0 3 * * *"}}, "build": build})
}

#[test]
fn a_schedule_can_be_added_run_replaced_and_removed() {
    let host = host();
    let mut new = nightly();
    new["rehearse"] = true.into();
    let plan = send(&host, "POST", SCHEDULES, "", Some(&new));
    assert_eq!(plan["http_status"], 200);
    assert_eq!(send(&host, "GET", SCHEDULES, "", None), json!([]));
    new["rehearse"] = false.into();
    let added = send(&host, "POST", SCHEDULES, "", Some(&new));
    assert_eq!(added["http_status"], 201);
    assert_eq!(added["submitter"], "token:submit-1");
    assert_eq!(
        (&added["timing"], &added["next"]),
        (&plan["timing"], &plan["next"])
    );
    assert!(added["timing"]["cron"]["zone"].is_string(), "{added}");
    assert_eq!(
        send(&host, "POST", SCHEDULES, "", Some(&new))["http_status"],
        409
    );

    let first = send(&host, "POST", RUN, "nightly", None);
    assert_eq!(
        (&first["http_status"], &first["schedule"]),
        (&json!(201), &json!("nightly"))
    );
    let second = send(&host, "POST", RUN, "nightly", None);
    assert_eq!(
        (&second["http_status"], &second["id"]),
        (&json!(200), &first["id"])
    );
    let shown = send(&host, "GET", SCHEDULE, "nightly", None);
    assert_eq!(shown["last"]["result"], "attached");
    assert_eq!(shown["last"]["due"], Value::Null);
    assert_eq!(shown["next"], added["next"], "the next run is unchanged");
    let metrics = host.get("/metrics").text().unwrap();
    for line in [
        "buildhost_schedule_runs_total{schedule=\"nightly\",result=\"submitted\"} 1",
        "buildhost_schedule_runs_total{schedule=\"nightly\",result=\"attached\"} 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }

    new["replace"] = true.into();
    new["timing"] = json!({"every": "PT6H"});
    let replaced = send(&host, "POST", SCHEDULES, "", Some(&new));
    assert_eq!(
        (&replaced["http_status"], &replaced["last"]),
        (&json!(200), &Value::Null)
    );
    send(&host, "DELETE", SCHEDULE, "nightly", None);
    for (method, route) in [("DELETE", SCHEDULE), ("GET", SCHEDULE), ("POST", RUN)] {
        assert_eq!(
            send(&host, method, route, "nightly", None)["http_status"],
            404
        );
    }
    let builds = host
        .remote("GET", "/api/v1/builds?schedule=nightly")
        .bearer_auth("s");
    let builds: Value = builds.send().unwrap().json().unwrap();
    assert_eq!(builds.as_array().unwrap().len(), 1);
}

#[test]
fn schedules_are_listed_in_pages_and_publish_events() {
    let host = host();
    let before = host.host.telemetry.events.newest();
    for name in ["c", "a", "b"] {
        let mut new = nightly();
        new["name"] = name.into();
        assert_eq!(
            send(&host, "POST", SCHEDULES, "", Some(&new))["http_status"],
            201
        );
    }
    let mut next = Some(format!("{SCHEDULES}?count=2"));
    let mut names = Vec::new();
    while let Some(path) = next {
        let response = host.remote("GET", &path).bearer_auth("s").send().unwrap();
        let link = response.headers().get("link");
        next = link.map(|link| {
            let link = link.to_str().unwrap();
            link.split(['<', '>']).nth(1).unwrap().to_owned()
        });
        let page = check("GET", SCHEDULES, response);
        let page = page.as_array().unwrap().iter();
        names.extend(page.map(|it| it["name"].as_str().unwrap().to_owned()));
    }
    assert_eq!(names, ["a", "b", "c"]);
    send(&host, "DELETE", SCHEDULE, "a", None);
    let events = host.host.telemetry.events.after(before).unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.name()).collect();
    assert_eq!(kinds, ["schedule", "schedule", "schedule", "unscheduled"]);
}

#[test]
fn only_administrators_set_the_submitter_and_an_unchecked_machine_may_be_missing() {
    let host = host();
    let mut new = nightly();
    new["build"]["submitter"] = "alice".into();
    assert_eq!(
        send(&host, "POST", SCHEDULES, "", Some(&new))["http_status"],
        403
    );
    new["build"]["submitter"] = Value::Null;
    new["build"]["machine"] = "later".into();
    assert_eq!(
        send(&host, "POST", SCHEDULES, "", Some(&new))["http_status"],
        404
    );
    new["unchecked"] = true.into();
    assert_eq!(
        send(&host, "POST", SCHEDULES, "", Some(&new))["http_status"],
        201
    );
    let refused = send(&host, "POST", RUN, "nightly", None);
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("no machine later"),
        "{refused}"
    );
}

fn machinectl(host: &ApiHost, line: &str) -> CommandOutput {
    let mut command = sys::command::prepare(tests::program("machinectl"));
    command.env("BUILDHOST_SOCKET", host.path("run/agent.sock"));
    let source = host.path("hello.c").display().to_string();
    command.args(
        shlex::split(line)
            .unwrap()
            .iter()
            .map(|word| match word.as_str() {
                "SOURCE" => source.as_str(),
                word => word,
            }),
    );
    run(command, b"")
}

#[test]
fn the_schedule_commands_add_show_run_and_remove_and_support_dry_runs() {
    let host = host();
    tests::write_file(&host.path("hello.c"), "int main(void) { return 0; }\n");
    let call = |line: &str| machinectl(&host, line);
    let add = "schedule add nightly --cron '0 3 * * MON-FRI' --zone Europe/Berlin";
    let build = "-- linux SOURCE --priority -2 --submitter alice";
    let plan = call(&format!("{add} --dry-run {build}")).success().stdout;
    assert!(
        plan.starts_with(
            "would add schedule nightly: cron 0 3 * * MON-FRI (Europe/Berlin), next at "
        ),
        "{plan}"
    );
    assert_eq!(call("schedule list").success().stdout, "");
    let added = call(&format!("{add} {build}")).success();
    assert!(added.stderr.contains("[Europe/Berlin], in "), "{added:?}");
    call(&format!("{add} {build}")).refused(11, "`--replace` replaces it");
    call(&format!("{add} --replace {build}")).success();
    let list = call("schedule list --no-legend").success().stdout;
    assert!(
        list.starts_with("nightly  cron 0 3 * * MON-FRI (Europe/Berlin)  linux  2"),
        "{list}"
    );
    let plan = call("schedule run nightly --dry-run").success().stdout;
    assert_eq!(plan, "would run schedule nightly on linux\n");
    assert_eq!(call("schedule run nightly").success().stdout, "1\n");
    let build = call("builds 1").success().stdout;
    for line in ["  schedule  nightly", " submitter  alice", "  priority  -2"] {
        assert!(build.contains(line), "{build}");
    }
    let shown = call("schedule show nightly").success().stdout;
    for expected in ["result  build 1", "due  by hand", "hello.c ("] {
        assert!(shown.contains(expected), "{shown}");
    }
    assert_eq!(
        call("builds --schedule nightly --no-legend")
            .success()
            .stdout
            .lines()
            .count(),
        1
    );
    assert_eq!(call("builds --schedule other").success().stdout, "");
    let plan = call("schedule remove nightly --dry-run").success().stdout;
    assert_eq!(plan, "would remove schedule nightly\n");
    call("schedule remove nightly").success();
    for verb in ["remove", "remove --dry-run", "show", "run", "run --dry-run"] {
        call(&format!("schedule {verb} nightly")).refused(10, "no schedule nightly");
    }
}

/// Invalid arguments of `schedule add`, the exit code, and a part of the message.
const INVALID_ARGUMENTS: &[(&str, i32, &str)] = &[
    ("x -- linux SOURCE", 2, "--at"),
    (
        "x --every 1h --at 03:00 -- linux SOURCE",
        2,
        "cannot be used with",
    ),
    (
        "x --every 1h --zone UTC -- linux SOURCE",
        2,
        "cannot be used with",
    ),
    ("x --every often -- linux SOURCE", 2, "expected a span"),
    ("x --every 0s -- linux SOURCE", 3, "at least one second"),
    ("x --at yesterday -- linux SOURCE", 2, "is not a time"),
    (
        "x --at 2001-01-01 -- linux SOURCE",
        3,
        "the schedule never runs",
    ),
    (
        "x --at 03:00 --zone Berlin -- linux SOURCE",
        2,
        "no time zone `Berlin`",
    ),
    (
        "x --cron '0 3 * *' -- linux SOURCE",
        3,
        "is not a cron pattern",
    ),
    (
        "x --cron @daily --zone Berlin -- linux SOURCE",
        3,
        "no time zone `Berlin`",
    ),
    (
        "../x --every 1h -- linux SOURCE",
        2,
        "cannot be the name of a schedule",
    ),
    ("x --every 1h linux SOURCE", 2, "unexpected argument"),
    ("x --every 1h -- linux", 2, "required arguments"),
    (
        "x --every 1h -- linux SOURCE --colour",
        2,
        "unexpected argument",
    ),
    ("x --every 1h -- linux /nowhere", 1, "/nowhere"),
    ("x --every 1h -- other SOURCE", 10, "no machine other"),
    (
        "x --every 1h -- linux SOURCE --after 1",
        3,
        "cannot depend on other builds",
    ),
    (
        "x --every 1h -- linux SOURCE --interactive error",
        3,
        "cannot have a breakpoint",
    ),
];

#[test]
fn invalid_arguments_are_refused_and_no_source_is_uploaded() {
    let host = host();
    tests::write_file(&host.path("hello.c"), "int main(void) { return 0; }\n");
    for (line, code, message) in INVALID_ARGUMENTS {
        let answer = machinectl(&host, &format!("schedule add {line}"));
        assert_eq!(answer.code, Some(*code), "{line}: {answer:?}");
        assert!(answer.stderr.contains(message), "{line}: {answer:?}");
    }
    let sources = std::fs::read_dir(host.host.paths.sources()).unwrap();
    assert_eq!(sources.count(), 1, "no new source");
}

/// The invalid requests of the routes of schedules.
pub(crate) const REQUESTS: &[InvalidRequest] = &[
    ("GET", SCHEDULES, "?count=x", "", "", 400),
    ("GET", SCHEDULES, "?colour=red", "", "", 400),
    ("GET", SCHEDULES, "?from=..", "", "", 400),
    ("GET", SCHEDULE, "/api/v1/schedules/..%2Fx", "", "", 400),
    ("GET", SCHEDULE, "/api/v1/schedules/none", "", "", 404),
    ("DELETE", SCHEDULE, "/api/v1/schedules/none", "", "", 404),
    ("POST", RUN, "/api/v1/schedules/none/run", "", "", 404),
    ("POST", SCHEDULES, "", "", "{}", 415),
    ("POST", SCHEDULES, "", JSON, "{}", 422),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "../x", "timing": {"cron": {"pattern": "0 3 * * *"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        422,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "0 3 * *"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "0 0 30 2 *"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily", "zone": "Berlin"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"every": "PT0S"}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"every": "-PT1H"}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"every": "soon"}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        422,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"at": "1970-01-01T00:00:00Z"}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"at": "2100-01-01T00:00:00Z", "every": "PT1H"}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}]}, "colour": 1}"#,
        422,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "other", "sources": [{"name": "a", "sha256": "HERE"}]}}"#,
        404,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "NOT"}]}}"#,
        409,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "linux", "sources": []}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}], "after": [1]}}"#,
        400,
    ),
    (
        "POST",
        SCHEDULES,
        "",
        JSON,
        r#"{"name": "x", "timing": {"cron": {"pattern": "@daily"}}, "build": {"machine": "linux", "sources": [{"name": "a", "sha256": "HERE"}], "interactive": "error"}}"#,
        400,
    ),
];

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    assert_all_refused(REQUESTS);
}
