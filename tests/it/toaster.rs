//! Toaster's monitoring API, byte for byte.

use config::builds::{Build, Request, State};
use config::task::Outcome;
use jiff::Timestamp;
use tests::api_host::ApiHost;

/// Records a build of these sources after a change, and returns its number.
fn record_build(host: &ApiHost, sources: &[&str], change: impl FnOnce(&mut Build)) -> u64 {
    record_build_of(host, sources, None, change)
}

/// Records a build of a project like [`record_build`].
fn record_build_of(
    host: &ApiHost,
    sources: &[&str],
    project: Option<&str>,
    change: impl FnOnce(&mut Build),
) -> u64 {
    let source = |name| format!(r#"{{"name": "{name}", "sha256": "{}"}}"#, "0".repeat(64));
    let sources: Vec<_> = sources.iter().map(source).collect();
    let request = format!(
        r#"{{"machine": "qemux86-64", "sources": [{}]}}"#,
        sources.join(",")
    );
    let mut request: Request = serde_json::from_str(&request).unwrap();
    request.project = project.map(|name| name.parse().unwrap());
    let submitted = host.host.records.submit(
        request,
        "poky".parse().unwrap(),
        "alpha".parse().unwrap(),
        time("2026-01-02T03:04:00Z"),
    );
    let mut build = host.block_on(submitted).unwrap();
    change(&mut build);
    host.block_on(host.host.records.save(&mut build)).unwrap();
    build.id.0
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn succeeded(build: &mut Build) {
    build.state = State::Finished;
    build.outcome = Some(Outcome::Success);
    build.started = Some(time("2026-01-02T03:04:05.678999Z"));
    build.finished = Some(time("2026-01-02T03:05:06.913999Z"));
}

fn text(host: &ApiHost, path: &str) -> String {
    let response = host.get(path);
    assert_eq!(response.status(), 200, "{path}");
    assert_eq!(
        response.headers()["content-type"],
        "application/json",
        "{path}"
    );
    response.text().unwrap()
}

#[test]
fn responses_equal_those_captured_from_toaster() {
    let host = ApiHost::new("");
    assert_eq!(
        text(&host, "/toastergui/api/builds"),
        r#"{"builds": [], "count": 0}"#
    );
    record_build(&host, &["core-image-minimal"], succeeded);
    assert_eq!(
        text(&host, "/toastergui/api/builds"),
        r#"{"builds": [{"id": 1, "name": "20260102030405", "machine": "qemux86-64", "distro": "poky", "start": "2026-01-02T03:04:05.678Z", "target": "core-image-minimal", "project": "alpha", "outcome": "Succeeded", "seconds": "61.235", "stop": "2026-01-02T03:05:06.913Z", "errors": 0, "warnings": 0}], "count": 1}"#
    );
    let log = host.path("state/builds/1/log.live").canonicalize();
    let log = log.unwrap_or_else(|_| host.host.paths.build(config::BuildId(1)).join("log.live"));
    assert_eq!(
        text(&host, "/toastergui/api/build/1"),
        format!(
            r#"{{"build": {{"id": 1, "name": "20260102030405", "machine": "qemux86-64", "distro": "poky", "start": "2026-01-02T03:04:05.678Z", "target": "core-image-minimal", "project": "alpha", "outcome": "Succeeded", "seconds": "61.235", "stop": "2026-01-02T03:05:06.913Z", "errors": 0, "warnings": 0, "cooker_log": "{}"}}}}"#,
            log.display()
        )
    );
}

#[test]
fn builds_in_progress_are_listed_separately_with_all_keys() {
    let host = ApiHost::new("");
    record_build(&host, &[], |build| {
        build.state = State::Running;
        build.started = Some(time("2026-01-02T03:04:05Z"));
    });
    record_build(&host, &["a.tar.gz", "b.zip"], |build| {
        build.state = State::Starting;
        build.started = Some(time("2026-01-02T03:04:06.000999Z"));
    });
    let found = text(&host, "/toastergui/api/building");
    let seconds = |found: &str| {
        let value: serde_json::Value = serde_json::from_str(found).unwrap();
        let seconds = value["building"][0]["seconds"].as_str().unwrap().to_owned();
        assert_eq!(seconds.split_once('.').unwrap().1.len(), 3, "{seconds}");
        seconds
    };
    seconds(&found);
    let keys: serde_json::Value = serde_json::from_str(&found).unwrap();
    let without_seconds = |build: &serde_json::Value| {
        let mut build = build.clone();
        build["seconds"] = "S".into();
        build.to_string()
    };
    assert_eq!(
        without_seconds(&keys["building"][0]),
        r#"{"clone":"0:2","distro":"poky","id":2,"machine":"qemux86-64","name":"20260102030406","parse":"0:1","project":"alpha","seconds":"S","start":"2026-01-02T03:04:06.000Z","target":"a","task":"0:1"}"#
    );
    assert!(
        found.contains(r#""target": "-", "project": "alpha", "seconds": ""#),
        "{found}"
    );
    assert!(
        found.contains(r#""start": "2026-01-02T03:04:05Z", "#),
        "{found}"
    );
    assert!(found.ends_with(r#""}], "count": 2}"#), "{found}");
    assert_eq!(
        text(&host, "/toastergui/api/builds"),
        r#"{"builds": [], "count": 0}"#
    );
}

#[test]
fn finished_builds_are_listed_by_their_start_newest_first() {
    let host = ApiHost::new("");
    let ids = || {
        let found: serde_json::Value =
            serde_json::from_str(&text(&host, "/toastergui/api/builds")).unwrap();
        let builds = found["builds"].as_array().unwrap();
        assert_eq!(found["count"], builds.len());
        let line = |build: &serde_json::Value| {
            format!("{} {}", build["id"], build["outcome"].as_str().unwrap())
        };
        builds.iter().map(line).collect::<Vec<_>>()
    };
    for (outcome, second) in [
        (Outcome::Skip, 10),
        (Outcome::Error, 30),
        (Outcome::Abort, 20),
        (Outcome::Abnormal, 40),
        (Outcome::Interrupt, 5),
    ] {
        record_build(&host, &["a"], |build| {
            succeeded(build);
            build.outcome = Some(outcome);
            build.started = Some(time(&format!("2026-01-02T03:00:{second:02}Z")));
        });
        ids();
    }
    record_build(&host, &["a"], |_| {});
    assert_eq!(
        ids(),
        [
            "4 Failed",
            "2 Failed",
            "3 Cancelled",
            "1 Succeeded",
            "5 Cancelled"
        ]
    );
}

#[test]
fn the_most_recent_builds_are_those_in_progress_and_the_last_three() {
    let host = ApiHost::new("");
    for minute in 0..5 {
        record_build(&host, &["a", "b"], |build| {
            succeeded(build);
            build.outcome = Some(Outcome::Warning);
            build.finished = Some(time(&format!("2026-01-02T04:0{minute}:00Z")));
        });
    }
    record_build(&host, &["a"], |_| {});
    let text = text(&host, "/toastergui/mostrecentbuilds?project_id=nonsense");
    let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = found
        .iter()
        .map(|build| build["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [6, 5, 4, 3]);
    assert_eq!(found[0]["state"], "Queued");
    // The text has the local time.
    let completed = found[1]["completed_on"].as_str().unwrap();
    assert!(completed.starts_with("02/01/2026 "), "{completed}");
    let last = &text[text.find(r#"{"id": 5,"#).unwrap()..text.find(r#", {"id": 4,"#).unwrap()];
    insta::assert_snapshot!(last.replace(completed, "COMPLETED"));
}

#[test]
fn the_most_recent_builds_can_be_those_of_a_project() {
    let host = ApiHost::new("");
    for name in ["camera", "gateway"] {
        let project =
            format!(r#"{{"name": "{name}", "owner": "root", "changed": "2026-01-02T03:04:05Z"}}"#);
        let project = serde_json::from_str(&project).unwrap();
        host.host.catalog.put_project(&project, false).unwrap();
    }
    let id = |name: &str| {
        host.host
            .catalog
            .project(&name.parse().unwrap())
            .unwrap()
            .id
    };
    assert_ne!(id("camera"), id("gateway"));
    for project in ["camera", "gateway", "camera"] {
        record_build_of(&host, &["a"], Some(project), succeeded);
    }
    record_build(&host, &["a"], |_| {});
    let recent = |query: &str| -> Vec<u64> {
        let text = text(&host, &format!("/toastergui/mostrecentbuilds{query}"));
        let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let ids = found.iter().map(|build| build["id"].as_u64().unwrap());
        ids.collect()
    };
    assert_eq!(recent(&format!("?project_id={}", id("camera"))), [3, 1]);
    assert_eq!(recent(&format!("?project_id={}", id("gateway"))), [2]);
    // Toaster ignores a project that does not exist.
    for ignored in ["", "?project_id=77", "?project_id="] {
        assert_eq!(recent(ignored), [4, 3, 2, 1], "{ignored}");
    }
    let builds = text(&host, "/toastergui/api/builds");
    assert!(builds.contains(r#""project": "gateway""#), "{builds}");
}

#[test]
fn toasters_quirks_are_preserved() {
    let host = ApiHost::new("");
    let health = host.get("/health");
    assert_eq!(health.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(health.headers()["content-length"], "105");
    assert_eq!(
        health.text().unwrap(),
        "<!DOCTYPE html>\n<html lang=\"en\">\n  <head><title>Toaster Health</title></head>\n  \
         <body>Ok</body>\n</html>\n\n"
    );
    for id in ["7", "99999999999999999999999"] {
        let found = text(&host, &format!("/toastergui/api/build/{id}"));
        assert_eq!(found, r#"{"build": null}"#);
    }
    for (method, path, status) in [
        ("HEAD", "/health", 200),
        ("HEAD", "/toastergui/api/builds", 200),
        ("GET", "/health/", 404),
        ("GET", "/toastergui/api/builds/", 404),
        ("GET", "/toastergui/api/build/x", 404),
        ("GET", "/toastergui/api/build/-1", 404),
        ("GET", "/toastergui/api/build/", 404),
        ("POST", "/health", 403),
        ("POST", "/toastergui/api/builds", 403),
        ("DELETE", "/toastergui/api/build/1", 403),
        ("PUT", "/toastergui/mostrecentbuilds", 403),
    ] {
        let response = host.remote(method, path).send().unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let content_type = response.headers()["content-type"].to_str().unwrap();
        let is_html = status != 200 || path == "/health";
        assert_eq!(
            content_type.starts_with("text/html"),
            is_html,
            "{method} {path}: {content_type}"
        );
    }
}
