//! Toaster's monitoring API: what its readers get, byte for byte.

use config::builds::{Build, State};
use config::task::Outcome;
use jiff::Timestamp;
use tests::api_host::ApiHost;

/// A build of some sources on the host, as far as it has come.
fn build(host: &ApiHost, sources: &[&str], change: impl FnOnce(&mut Build)) -> u64 {
    let source = |name| format!(r#"{{"name": "{name}", "sha256": "{}"}}"#, "0".repeat(64));
    let sources: Vec<_> = sources.iter().map(source).collect();
    let request = format!(
        r#"{{"machine": "qemux86-64", "sources": [{}]}}"#,
        sources.join(",")
    );
    let request = serde_json::from_str(&request).unwrap();
    let submitted = host.host.records.submit(
        request,
        "poky".parse().unwrap(),
        "alpha".parse().unwrap(),
        time("2026-01-02T03:04:00Z"),
    );
    let mut build = host.block_on(submitted).unwrap();
    change(&mut build);
    host.block_on(host.host.records.save(&build)).unwrap();
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
    let answer = host.get(path);
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/json".parse().unwrap()),
        "{path}"
    );
    answer.text().unwrap()
}

#[test]
fn the_captured_answers_come_out_byte_for_byte() {
    let host = ApiHost::new("");
    assert_eq!(
        text(&host, "/toastergui/api/builds"),
        r#"{"builds": [], "count": 0}"#
    );
    build(&host, &["core-image-minimal"], succeeded);
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
fn what_is_in_progress_is_told_apart_and_every_object_is_whole() {
    let host = ApiHost::new("");
    build(&host, &[], |build| {
        build.state = State::Running;
        build.started = Some(time("2026-01-02T03:04:05Z"));
    });
    build(&host, &["a.tar.gz", "b.zip"], |build| {
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
fn the_list_follows_what_ends_newest_start_first() {
    let host = ApiHost::new("");
    let ids = || {
        let found: serde_json::Value =
            serde_json::from_str(&text(&host, "/toastergui/api/builds")).unwrap();
        let builds = found["builds"].as_array().unwrap();
        assert_eq!(found["count"], builds.len());
        let told = |build: &serde_json::Value| {
            format!("{} {}", build["id"], build["outcome"].as_str().unwrap())
        };
        builds.iter().map(told).collect::<Vec<_>>()
    };
    for (outcome, second) in [
        (Outcome::Skip, 10),
        (Outcome::Error, 30),
        (Outcome::Abort, 20),
        (Outcome::Abnormal, 40),
        (Outcome::Interrupt, 5),
    ] {
        build(&host, &["a"], |build| {
            succeeded(build);
            build.outcome = Some(outcome);
            build.started = Some(time(&format!("2026-01-02T03:00:{second:02}Z")));
        });
        ids();
    }
    build(&host, &["a"], |_| {});
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
        build(&host, &["a", "b"], |build| {
            succeeded(build);
            build.outcome = Some(Outcome::Warning);
            build.finished = Some(time(&format!("2026-01-02T04:0{minute}:00Z")));
        });
    }
    build(&host, &["a"], |_| {});
    let text = text(&host, "/toastergui/mostrecentbuilds?project_id=nonsense");
    let found: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<_> = found
        .iter()
        .map(|build| build["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, [6, 5, 4, 3]);
    assert_eq!(found[0]["state"], "Queued");
    // Its text is that of the local time zone.
    let completed = found[1]["completed_on"].as_str().unwrap();
    assert!(completed.starts_with("02/01/2026 "), "{completed}");
    let last = &text[text.find(r#"{"id": 5,"#).unwrap()..text.find(r#", {"id": 4,"#).unwrap()];
    insta::assert_snapshot!(last.replace(completed, "COMPLETED"));
}

#[test]
fn the_quirks_are_kept() {
    let host = ApiHost::new("");
    let health = host.get("/health");
    assert_eq!(health.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(health.headers()["content-length"], "105");
    assert!(health.text().unwrap().contains("<body>Ok</body>"));
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
        let answer = host.remote(method, path).send().unwrap();
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let kind = answer.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        let html = status != 200 || path == "/health";
        assert_eq!(
            kind.starts_with("text/html"),
            html,
            "{method} {path}: {kind}"
        );
    }
}
