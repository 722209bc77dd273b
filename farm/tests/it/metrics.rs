//! The metrics of a coordinator.

use farm_core::messages::{Reply, Request};
use farm_objects::Objects;
use serde_json::json;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{open, submission};
use super::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn metrics_tell_of_the_queue_the_hosts_and_what_went_wrong() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let directory = tempfile::tempdir().unwrap();
    let address = format!("file://{}", directory.path().display());
    let objects = Objects::open(address.parse().unwrap(), None, "", None).unwrap();
    let server = Server::archiving(&store, objects).await;
    let keys = server.keys(&store, &["one", "two"]).await;
    let submitted = server
        .coordinator()
        .handle(Request::Submit(submission("first")))
        .await;
    let Reply::Submitted(build) = submitted else {
        panic!("{submitted:?}");
    };
    let (_, waiting) = server.text("/metrics").await;
    assert!(
        waiting.contains("buildhost_farm_builds_unfinished{state=\"queued\"} 1"),
        "{waiting}"
    );
    assert!(
        waiting.contains("buildhost_farm_hosts{state=\"new\"} 2"),
        "{waiting}"
    );
    let answer = server.poll(&keys[0], 1, json!([])).await;
    assert_eq!(answer["leases"].as_array().unwrap().len(), 1, "{answer}");
    let lie = json!({ "lease": { "build": build, "epoch": 1 }, "outcome": "success" });
    for (key, status) in [(&keys[1], 409), (&keys[0], 204)] {
        let request = server.http.post(format!("{}/farm/v1/report", server.base));
        let request = request.header("Content-Type", "application/json");
        let answer = request.bearer_auth(key).body(lie.to_string()).send().await;
        assert_eq!(answer.unwrap().status().as_u16(), status);
    }
    let (_, text) = server.text("/metrics").await;
    for line in [
        "buildhost_farm_database_up 1",
        "buildhost_farm_builds_unfinished{state=\"running\"} 0",
        "buildhost_farm_builds_claimed_total 1",
        "buildhost_farm_results_total 1",
        "buildhost_farm_results_refused_total 1",
        "buildhost_farm_hosts{state=\"alive\"} 1",
        "buildhost_farm_uploads_waiting 1",
        "buildhost_farm_upload_failures_total 0",
        "buildhost_farm_notifications_waiting{rule=\"team\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for name in alerted() {
        assert!(text.contains(&name), "{name} in {text}");
    }
}

/// Returns the names of the metrics of coordinators that the alerts use.
fn alerted() -> Vec<String> {
    let rules = include_str!("../../../docs/alerts.yaml");
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = rules.split(|c| !is_part(c));
    let names = words.filter(|word| word.starts_with("buildhost_farm_"));
    names.map(str::to_owned).collect()
}
