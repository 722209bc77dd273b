//! The metrics for Prometheus, and that the dashboard and the alert rules use no others.

use std::collections::BTreeSet;

use config::builds::State;
use config::schedule::RunResult;
use config::task::Outcome;
use jiff::Timestamp;
use tests::api_host::ApiHost;

/// Returns the names of the project's metrics in a text.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let names = words.filter(|word| word.starts_with("buildhost_") || word.starts_with("prserv_"));
    names.map(str::to_owned).collect()
}

/// Returns a host whose metrics all have samples.
fn host_with_history() -> ApiHost {
    let host = ApiHost::new("");
    let records = &host.host.records;
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let second = |second| Timestamp::from_second(second).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let done = records.submit(request, toolchain, root, second(0));
    let mut build = host.block_on(done).unwrap();
    build.enter(State::Starting, second(7)).unwrap();
    build.enter(State::Finished, second(9)).unwrap();
    build.outcome = Some(Outcome::Success);
    host.block_on(records.save(&mut build)).unwrap();
    host.host.publish_status(config::builds::Status {
        name: "host".into(),
        version: "1".into(),
        trials: serde_json::from_str(
            r#"[{"machine": "linux", "revision": 7, "terms": "3 of 10", "since": "2026-01-01T00:00:00Z",
                "succeeded": 1, "needed": 3, "strikes": 0, "running": 0, "repeating": 0}]"#,
        )
        .unwrap(),
        machines: serde_json::from_str(
            r#"[{"machine": "linux", "toolchain": "default", "image": "ready", "message": ""}]"#,
        )
        .unwrap(),
        queued: 0,
        guests: 0,
        notices: Vec::new(),
        volumes: Vec::new(),
        resources: serde_json::from_str(r#"{"license": {"taken": 1, "total": 2}}"#).unwrap(),
        pressure: Vec::new(),
    });
    let nightly = "nightly".parse().unwrap();
    host.host
        .telemetry
        .metrics
        .schedule_run(&nightly, RunResult::Failed);
    host.get("/health");
    host
}

fn text(host: &ApiHost) -> String {
    let answer = host.get("/metrics");
    assert_eq!(answer.status(), 200);
    answer.text().unwrap()
}

#[test]
fn builds_are_counted_with_the_duration_of_each_phase() {
    let text = text(&host_with_history());
    for line in [
        r#"buildhost_builds_total{machine="linux",outcome="success"} 1"#,
        r#"buildhost_build_phase_seconds_sum{phase="queued"} 7.0"#,
        r#"buildhost_build_phase_seconds_count{phase="starting"} 1"#,
        r#"buildhost_schedule_runs_total{schedule="nightly",result="failed"} 1"#,
        r#"buildhost_builds_unfinished{state="queued"} 0.0"#,
        r#"buildhost_revision_on_trial{machine="linux"} 7.0"#,
        r#"buildhost_trials_total{verdict="rolled_back"} 0"#,
        r#"buildhost_machine_ready{machine="linux",toolchain="default"} 1.0"#,
        r#"buildhost_resources{resource="license"} 2.0"#,
        r#"buildhost_resources_used{resource="license"} 1.0"#,
        r#"buildhost_http_requests_total{method="GET",route="/health",status="200"} 1"#,
        r#"prserv_requests_total{kind="get-pr"} 0"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
    assert!(
        text.contains(r#"buildhost_free_bytes{kind="volume""#),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
}

#[test]
fn the_pressure_on_the_host_is_measured_when_asked() {
    let reports = tempfile::tempdir().unwrap();
    let host = ApiHost::new(&format!("paths.pressure = {:?}\n", reports.path()));
    assert!(!text(&host).contains("buildhost_pressure_ratio{"));
    let report = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=1\n";
    tests::write_file(&reports.path().join("memory"), report);
    let text = text(&host);
    for line in [
        r#"buildhost_pressure_ratio{resource="memory",stall="some"} 0.125"#,
        r#"buildhost_pressure_ratio{resource="memory",stall="full"} 0.0025"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line} in {text}");
    }
}

#[test]
fn the_dashboard_and_the_alerts_use_existing_metrics() {
    let host = host_with_history();
    let text = text(&host);
    // A metric without labels so far has no sample, but always a help text.
    let known: BTreeSet<_> = metric_names(&text)
        .into_iter()
        .flat_map(|name| {
            let ends = ["", "_total", "_bucket", "_sum", "_count"];
            ends.map(|end| format!("{name}{end}"))
        })
        .collect();
    let dashboard = include_str!("../../docs/grafana.json");
    let alerts = include_str!("../../docs/alerts.yaml");
    let mut used = metric_names(dashboard);
    used.extend(metric_names(alerts));
    assert!(used.len() > 12, "{used:?}");
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?} in {text}");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn the_counters_of_the_hash_equivalence_service_are_there_if_the_host_has_it() {
    let without = text(&ApiHost::new(""));
    assert!(!without.contains("hashserv_"), "{without}");
    let with = text(&ApiHost::new("[hashserv]\nenabled = true\n"));
    assert!(with.contains("hashserv_requests_total"), "{with}");
    assert!(with.contains("prserv_"), "{with}");
}
