//! The metrics for Prometheus, as its own tools judge them, and that the dashboard and the alert rules
//! use no others.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use config::builds::State;
use config::schedule::RunResult;
use config::task::Outcome;
use jiff::Timestamp;
use sys::command::{prepare, run};
use tests::api_host::ApiHost;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Returns the names of the project's metrics in a text.
fn metric_names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let names = words.filter(|word| {
        let prefixes = ["buildhost_", "prserv_", "process_"];
        prefixes.iter().any(|prefix| word.starts_with(prefix))
    });
    names.map(str::to_owned).collect()
}

/// Returns a host whose metrics all have samples.
fn host_with_history() -> ApiHost {
    let host = ApiHost::new(
        "[[controllers]]\nname = \"ci\"\nurl = \"http://localhost/\"\ntoolchain_version = \"1.0\"\n\
         [[notify]]\nname = \"team\"\nmail = [\"root\"]\n[[feeds]]\nname = \"main\"\nkeys = [\"/none\"]\n",
    );
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
    text_as(host, OPEN_METRICS, OPEN_METRICS)
}

/// Returns the metrics for a client that accepts `accept`, after a look at their format.
fn text_as(host: &ApiHost, accept: &str, format: &str) -> String {
    let request = host.remote("GET", "/metrics").header("accept", accept);
    let answer = request.send().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], format, "{accept}");
    assert_eq!(answer.headers()["vary"], "accept");
    answer.text().unwrap()
}

/// Runs promtool of Prometheus, which fails at what it complains about. Returns its complaints.
fn promtool(arguments: &[&str], input: &str, directory: &Path) -> Result<String, String> {
    let file = directory.join("input");
    tests::write_file(&file, input);
    let mut command = prepare("promtool");
    command.args(arguments).current_dir(directory);
    command.stdin(std::fs::File::open(file).unwrap());
    let output = run(command, Duration::from_mins(1));
    output
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .map_err(|error| error.to_string())
}

#[test]
fn promtool_complains_about_no_metric() {
    let host = host_with_history();
    let directory = tempfile::tempdir().unwrap();
    let check = |text: &str| promtool(&["check", "metrics"], text, directory.path());
    let metrics = text_as(&host, "text/plain", TEXT);
    assert_eq!(check(&metrics), Ok(String::new()), "{metrics}");
    let bad = "# TYPE buildhost_builds counter\nbuildhost_builds 1\n";
    assert!(check(bad).unwrap_err().contains("_total"));
    let plain: BTreeSet<_> = metric_names(&metrics);
    for name in [
        "buildhost_agent_info",
        "buildhost_builds_total",
        "process_cpu_seconds_total",
        "prserv_requests_total",
    ] {
        assert!(plain.contains(name), "{name} in {metrics}");
    }
    assert!(!metrics.contains("# EOF") && !metrics.contains("# UNIT"));
}

#[test]
fn the_header_accept_selects_the_format() {
    let host = host_with_history();
    for accept in ["*/*", "text/html, */*;q=0.1", "application/json"] {
        text_as(&host, accept, TEXT);
    }
    let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    text_as(&host, prometheus, OPEN_METRICS);
}

#[test]
fn every_alert_fires_as_its_tests_say_and_has_a_section_in_the_documentation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let rules = include_str!("../../docs/alerts.yaml");
    let cases = include_str!("../alerts/tests.yaml");
    tests::write_file(&path.join("alerts.yaml"), rules);
    tests::write_file(&path.join("tests.yaml"), cases);
    promtool(&["check", "rules", "alerts.yaml"], "", path).unwrap();
    promtool(&["test", "rules", "tests.yaml"], "", path).unwrap();
    let text = include_str!("../../docs/alerts.md");
    let after = |line: &str, key: &str| line.trim().strip_prefix(key).map(str::to_owned);
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| after(line, "- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        assert!(text.contains(&format!("\n## {alert}\n")), "{alert}");
        let anchor = format!("/alerts.md#{}\"", alert.to_lowercase());
        assert_eq!(rules.matches(&anchor).count(), 1, "{alert}");
        let tested = cases.matches(&format!("alertname: {alert}\n")).count();
        let silent = cases
            .matches(&format!("alertname: {alert}, exp_alerts: []"))
            .count();
        assert!(tested == 1 && silent >= 1, "{alert}: {tested}, {silent}");
    }
    assert_eq!(rules.matches("severity: ").count(), alerts.len());
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
        "buildhost_queue_oldest_seconds 0.0",
        r#"buildhost_guest_seconds_total{machine="linux"} 2.0"#,
        r#"buildhost_guests{job="hold"} 0.0"#,
        "buildhost_drained 0.0",
        r#"buildhost_notices{kind="reserve"} 0.0"#,
        "buildhost_cpus_allocated 0.0",
        r#"buildhost_controller_reports_waiting{controller="ci"} 0.0"#,
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
    // A test of the farm compares those of coordinators.
    used.retain(|name| !name.starts_with("buildhost_farm_"));
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
