//! Schedules over HTTP, with coordinators that run them.

use axum::http::StatusCode;
use config::tokens::Scope;
use farm::secret;
use serde_json::{Value, json};
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{number, open, wait_for};
use super::server::Server;

const SCHEDULES: &str = "/farm/v1/schedules";

/// Returns a request to add a schedule of the project `camera`.
fn new(name: &str, timing: &Value) -> Value {
    json!({
        "name": name, "timing": timing, "project": "camera", "target": "hello",
        "requirements": {
            "machine": "linux", "toolchain": "default", "cpus": 1, "memory_mib": 1,
            "work": { "script": "#!/bin/sh\n", "package": "hello" },
        },
    })
}

/// Sends a request as a client, and returns the status and the document of the answer.
async fn send(
    server: &Server,
    method: reqwest::Method,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let request = server
        .http
        .request(method, format!("{}{path}", server.base));
    let request = request.header("Content-Type", "application/json");
    let answer = request.bearer_auth(token).body(body.to_string()).send();
    let answer = answer.await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn post(server: &Server, path: &str, token: &str, body: &Value) -> (u16, Value) {
    send(server, reqwest::Method::POST, path, token, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn two_coordinators_run_each_time_of_a_schedule_once() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let (one, two) = (Server::start(&store).await, Server::start(&store).await);
    let mut often = new("often", &json!({ "every": "PT1S" }));
    often["coalesce"] = json!(false);
    let (status, added) = post(&one, SCHEDULES, one.token(), &often).await;
    assert_eq!(status, 201, "{added}");
    wait_for(&cluster, "SELECT count(*) FROM builds", |it| it >= 5).await;
    let (status, _) = post(
        &two,
        &format!("{SCHEDULES}/often/pause"),
        two.token(),
        &json!({}),
    )
    .await;
    assert_eq!(status, 204);
    // Each build has its time, and no time has two.
    let keys = "SELECT count(DISTINCT key) FROM submissions WHERE key LIKE 'schedule often %'";
    let builds = number(&cluster, "SELECT count(*) FROM builds").unwrap();
    assert_eq!(number(&cluster, keys), Some(builds));
    let (_, shown) = two.get(&format!("{SCHEDULES}/often")).await;
    assert_eq!(
        (&shown["paused"], &shown["next"]),
        (&json!(true), &Value::Null),
        "{shown}"
    );
    assert_eq!(shown["last"]["result"], json!("submitted"), "{shown}");
    let (_, projects) = two.get("/farm/v1/projects").await;
    assert_eq!(projects[0]["name"], json!("camera"));
    assert_eq!(projects[0]["unfinished"], json!(builds));
    assert_eq!(projects[0]["schedules"], json!(["often"]));
    let (_, metrics) = one.text("/metrics").await;
    assert!(
        metrics.contains("buildhost_farm_schedules{state=\"paused\"} 1"),
        "{metrics}"
    );
    let (_, other) = two.text("/metrics").await;
    let runs = |text: &str| {
        let line = text
            .lines()
            .find(|it| it.starts_with("buildhost_farm_schedule_runs_total"));
        let count = line.and_then(|it| it.rsplit(' ').next());
        count.map_or(0, |it| it.parse::<i64>().unwrap())
    };
    assert_eq!(runs(&metrics) + runs(&other), builds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn schedules_are_checked_and_need_the_scope_submit() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let server = Server::start(&store).await;
    for (name, scope) in [("reader", Scope::Read), ("ci", Scope::Submit)] {
        let hash = secret::hash(name);
        assert!(
            store
                .add_token(&name.parse().unwrap(), scope, hash)
                .await
                .unwrap()
        );
    }
    let daily = |zone: &Value| json!({ "cron": { "pattern": "0 3 * * *", "zone": zone } });
    let nightly = new("nightly", &daily(&json!("Europe/Berlin")));
    let mut rehearsal = nightly.clone();
    rehearsal["rehearse"] = json!(true);
    let mut foreign = nightly.clone();
    foreign["submitter"] = json!("ann");
    let mut changed = nightly.clone();
    changed["priority"] = json!(5);
    let mut replacing = changed.clone();
    replacing["replace"] = json!(true);
    for (token, body, expected, part) in [
        ("reader", &nightly, 403, "scope"),
        (
            "ci",
            &new("zoneless", &daily(&Value::Null)),
            422,
            "names its time zone",
        ),
        (
            "ci",
            &new("nowhere", &daily(&json!("Mars/Base"))),
            422,
            "no time zone",
        ),
        (
            "ci",
            &new("past", &json!({ "at": "2001-01-01T00:00:00Z" })),
            422,
            "never runs",
        ),
        ("ci", &foreign, 403, "submits as"),
        ("ci", &rehearsal, 200, "next"),
        ("ci", &nightly, 201, "token:ci"),
        ("ci", &nightly, 201, "token:ci"),
        ("ci", &changed, 409, "already"),
        ("ci", &rehearsal, 409, "already"),
        ("ci", &replacing, 200, "nightly"),
    ] {
        let (status, answer) = post(&server, SCHEDULES, token, body).await;
        assert_eq!(status, expected, "{answer}");
        assert!(answer.to_string().contains(part), "{part}: {answer}");
    }
    check_runs(&server, &nightly).await;
    let path = format!("{SCHEDULES}/nightly");
    for expected in [204, 404] {
        let (status, _) = send(&server, reqwest::Method::DELETE, &path, "ci", &json!({})).await;
        assert_eq!(status, expected);
    }
    let (status, left) = server.get(SCHEDULES).await;
    assert_eq!((status, left), (StatusCode::OK, json!([])));
}

/// Runs the schedule by hand, which makes one build, and tries keys of schedules.
async fn check_runs(server: &Server, nightly: &Value) {
    let path = format!("{SCHEDULES}/nightly");
    let run = format!("{path}/run");
    let key = json!({ "key": "k1" });
    for (token, path, body, expected) in [
        ("reader", run.as_str(), &key, 403),
        ("ci", run.as_str(), &key, 201),
        ("ci", run.as_str(), &key, 201),
        ("ci", run.as_str(), &json!({ "key": "k2" }), 200),
        (
            "ci",
            run.as_str(),
            &json!({ "key": "schedule nightly x" }),
            400,
        ),
        ("ci", "/farm/v1/schedules/none/run", &key, 404),
        ("ci", "/farm/v1/schedules/none/pause", &json!({}), 404),
    ] {
        let (status, answer) = post(server, path, token, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let (_, page) = server.get("/farm/v1/builds").await;
    assert_eq!(page["builds"].as_array().unwrap().len(), 1, "{page}");
    let mut forged = json!({ "key": "schedule nightly x" });
    forged["requirements"] = nightly["requirements"].clone();
    let (status, answer) = post(server, "/farm/v1/builds", "ci", &forged).await;
    assert_eq!(status, 400, "{answer}");
}
