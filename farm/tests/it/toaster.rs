//! Toaster's monitoring API over the builds of a farm, byte for byte.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{number, open, submit};
use super::server::Server;

/// Adds results in the order of their numbers, a second apart.
fn fill(cluster: &Cluster, count: u32) {
    let fill = format!(
        "WITH added AS (
            INSERT INTO finished (id, submitter, machine, requirements, submitted, finished, epoch,
                losses, revision, outcome, is_reported, target, project, claimed)
            SELECT nextval('build_ids'), 'alpha', 'qemux86-64',
                '{{\"machine\":\"qemux86-64\",\"toolchain\":\"poky\",\"cpus\":1,\"memory_mib\":1}}',
                '2026-01-02T03:04:00Z', timestamptz '2026-01-02T03:05:06.913Z' + n * interval '1 s',
                1, 0, 0, CASE WHEN n = 0 THEN 'success' ELSE 'error' END, true,
                'core-image-minimal', CASE WHEN n > 0 THEN 'camera' END,
                timestamptz '2026-01-02T03:04:05.678Z' + n * interval '1 s'
            FROM generate_series(0, {count} - 1) n RETURNING 1)
        SELECT count(*) FROM added"
    );
    assert_eq!(number(cluster, &fill), Some(count.into()));
}

/// Gets a document without a token.
async fn text(server: &Server, path: &str) -> String {
    let answer = server
        .http
        .get(format!("{}{path}", server.base))
        .send()
        .await;
    let answer = answer.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{path}");
    assert_eq!(
        answer.headers()["content-type"],
        "application/json",
        "{path}"
    );
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn responses_equal_those_captured_from_toaster() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let (one, two) = (Server::start(&store).await, Server::start(&store).await);
    let none = r#"{"builds": [], "count": 0}"#;
    assert_eq!(text(&one, "/toastergui/api/builds").await, none);
    fill(&cluster, 1);
    let build = r#"{"id": 1, "name": "20260102030405", "machine": "qemux86-64", "distro": "poky", "start": "2026-01-02T03:04:05.678Z", "target": "core-image-minimal", "project": "alpha", "outcome": "Succeeded", "seconds": "61.235", "stop": "2026-01-02T03:05:06.913Z", "errors": 0, "warnings": 0"#;
    for server in [&one, &two] {
        let expected = format!(r#"{{"builds": [{build}}}], "count": 1}}"#);
        // An answer is shared for a second.
        let shared = async {
            while text(server, "/toastergui/api/builds").await != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), shared)
            .await
            .unwrap();
        assert_eq!(
            text(server, "/toastergui/api/build/1").await,
            format!(r#"{{"build": {build}, "cooker_log": "/farm/v1/builds/1/log"}}}}"#)
        );
    }
    submit(one.coordinator(), "k").await;
    let building = text(&two, "/toastergui/api/building").await;
    assert!(building.ends_with(r#""}], "count": 1}"#), "{building}");
    let found: Value = serde_json::from_str(&building).unwrap();
    let first = &found["building"][0];
    assert_eq!(
        (&first["id"], &first["clone"]),
        (&2.into(), &"0:1".into()),
        "{first}"
    );
    let recent = text(&two, "/toastergui/mostrecentbuilds?project_id=7").await;
    let recent: Value = serde_json::from_str(&recent).unwrap();
    assert_eq!(
        (&recent[0]["id"], &recent[0]["state"]),
        (&2.into(), &"Queued".into())
    );
    assert_eq!(recent[1]["buildtime"], "00:01:01");
    assert_eq!(recent[1]["cancel_url"], "/farm/v1/builds/1/cancel");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn lists_have_pages_and_toasters_quirks_are_preserved() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let server = Server::start(&store).await;
    fill(&cluster, 5);
    let mut seen = Vec::new();
    let mut before = 99;
    loop {
        let path = format!("/toastergui/api/builds?before={before}&count=2");
        let page: Value = serde_json::from_str(&text(&server, &path).await).unwrap();
        let builds = page["builds"].as_array().unwrap();
        assert_eq!(page["count"], builds.len());
        seen.extend(builds.iter().map(|it| it["id"].as_u64().unwrap()));
        match builds.last() {
            Some(last) => before = last["id"].as_u64().unwrap(),
            None => break,
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    let all = text(&server, "/toastergui/api/builds").await;
    assert!(
        all.contains(r#""project": "camera", "outcome": "Failed""#),
        "{all}"
    );
    for id in ["7", "99999999999999999999999"] {
        let found = text(&server, &format!("/toastergui/api/build/{id}")).await;
        assert_eq!(found, r#"{"build": null}"#);
    }
    for (method, path, status) in [
        ("HEAD", "/health", 200),
        ("GET", "/toastergui/api/build/x", 404),
        ("GET", "/toastergui/api/builds/", 404),
        ("POST", "/health", 403),
        ("DELETE", "/toastergui/api/build/1", 403),
        ("PUT", "/toastergui/mostrecentbuilds", 403),
    ] {
        let method = method.parse().unwrap();
        let request = server
            .http
            .request(method, format!("{}{path}", server.base));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    let (status, health) = server.text("/health").await;
    assert_eq!((status, health.len()), (StatusCode::OK, 105));
}
