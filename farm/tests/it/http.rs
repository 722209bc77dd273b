//! The HTTP interface: enrolment, keys, builds, and hosts that lie.

use std::sync::Arc;

use axum::http::StatusCode;
use config::tokens::Scope;
use farm::api::{Attempts, Service};
use farm::coordinator::Coordinator;
use farm::secret;
use farm_store::Store;
use serde_json::{Value, json};
use server_tests::Cluster;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, block_in_place};

use super::farm::{TERMS, open, submission};
use super::host::offer;

struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    async fn post(&self, path: &str, secret: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("Authorization", format!("Bearer {secret}"));
        let request = request.header("Content-Type", "application/json");
        Self::answer(request.body(body.to_string())).await
    }

    async fn get(&self, path: &str, secret: &str) -> (StatusCode, Value) {
        let request = self.http.get(format!("{}{path}", self.base));
        Self::answer(request.header("Authorization", format!("Bearer {secret}"))).await
    }

    async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
        let answer = request.send().await.unwrap();
        let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn delete(&self, path: &str, secret: &str) -> StatusCode {
        let request = self.http.delete(format!("{}{path}", self.base));
        Self::answer(request.header("Authorization", format!("Bearer {secret}")))
            .await
            .0
    }

    async fn poll(&self, key: &str, number: u64, held: Value) -> (StatusCode, Value) {
        let id = json!({ "incarnation": 1, "number": number });
        let poll = json!({ "id": id, "held": held, "hold_ms": 0, "offer": offer(0) });
        self.post("/farm/v1/poll", key, &poll).await
    }
}

/// Serves a farm, and returns its client.
async fn serve(store: &Store) -> (Client, JoinHandle<()>) {
    let service = Arc::new(Service {
        coordinator: Coordinator::new(store.clone(), TERMS),
        client_token: Some(secret::hash(TOKEN)).into(),
        attempts: Attempts::default(),
        name: "camera farm".to_owned(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(farm::server::serve(
        listener,
        service,
        std::future::pending(),
    ));
    let http = reqwest::Client::new();
    (Client { base, http }, server)
}

const TOKEN: &str = "the-token-of-clients-0123456789abcdef";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_host_enrols_takes_a_build_and_cannot_lie_about_others() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    for (token, name) in [("t1", "one"), ("t2", "two")] {
        store.invite(secret::hash(token), name, 60).await.unwrap();
    }
    let (client, server) = serve(&store).await;
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    for (token, key, host) in [("t1", &one, 1), ("t2", &two, 2)] {
        let enrolment = json!({ "token": token, "key": key });
        let (status, enrolled) = client.post("/farm/v1/enrol", "", &enrolment).await;
        assert_eq!((status, &enrolled["host"]), (StatusCode::OK, &json!(host)));
        let (status, _) = client.post("/farm/v1/enrol", "", &enrolment).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "a token counts once");
    }
    let (status, _) = client.poll("nobody", 1, json!([])).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let request = serde_json::to_value(submission("k")).unwrap();
    let (status, _) = client.post("/farm/v1/builds", &one, &request).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "a host is no client");
    for _ in 0..2 {
        let (status, build) = client.post("/farm/v1/builds", TOKEN, &request).await;
        assert_eq!((status, &build["build"]), (StatusCode::CREATED, &json!(1)));
    }
    let (_, build) = client.get("/farm/v1/builds/1", TOKEN).await;
    let none = "no host can ever start it, because none has machine linux";
    assert_eq!(build["why"], json!(none));
    let (status, answer) = client.poll(&one, 1, json!([])).await;
    assert_eq!(status, StatusCode::OK);
    let lease = answer["leases"][0]["lease"].clone();
    assert_eq!(lease, json!({ "build": 1, "epoch": 1 }));
    let (_, build) = client.get("/farm/v1/builds/1", TOKEN).await;
    assert_eq!(build["host"], json!("one"));
    let report = json!({ "lease": lease, "outcome": "success" });
    let (status, refused) = client.post("/farm/v1/report", &two, &report).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    for _ in 0..2 {
        let (status, _) = client.post("/farm/v1/report", &one, &report).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let (_, build) = client.get("/farm/v1/builds/1", TOKEN).await;
    assert_eq!(build["outcome"], json!("success"));
    assert!(store.revoke("one").await.unwrap());
    let (status, _) = client.poll(&one, 2, json!([])).await;
    assert_eq!(
        status,
        StatusCode::UNAUTHORIZED,
        "a stolen key is taken away"
    );
    let (status, _) = client
        .post("/farm/v1/hosts/two/drain", TOKEN, &json!(null))
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (_, hosts) = client.get("/farm/v1/hosts", TOKEN).await;
    assert_eq!(hosts[1]["drained"], json!(true));
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn tokens_have_scopes() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let (client, server) = serve(&store).await;
    let [reader, ci, root] = tokens(&store).await;
    for (token, submitter, expected) in [
        (&reader, Value::Null, StatusCode::FORBIDDEN),
        (&ci, json!("ann"), StatusCode::FORBIDDEN),
        (&ci, Value::Null, StatusCode::CREATED),
        (&root, json!("ann"), StatusCode::CREATED),
    ] {
        let key = format!("{token}{submitter}");
        let (status, answer) = client
            .post("/farm/v1/builds", token, &new_build(&key, &submitter))
            .await;
        assert_eq!(status, expected, "{answer}");
    }
    let path = "/farm/v1/machines/linux";
    let (status, _) = client.post(path, &ci, &json!({ "revision": 2 })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let content = "a".repeat(64);
    let second = json!({ "revision": 2, "content": content });
    for _ in 0..2 {
        let (status, answer) = client.post(path, &root, &second).await;
        assert_eq!((status, answer), (StatusCode::OK, second.clone()));
    }
    let (_, machines) = client.get("/farm/v1/machines", &reader).await;
    assert_eq!(
        machines,
        json!([{
            "name": "linux", "revision": 2, "content": content, "revisions": [], "unlike_hosts": 0,
            "hosts": {},
        }])
    );
    let other = json!({ "revision": 2, "content": "b".repeat(64) });
    let (status, refused) = client.post(path, &root, &other).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");
    let (status, refused) = client.post(path, &root, &json!({ "revision": 3 })).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        refused
            .to_string()
            .contains("no host that is alive has revision 3"),
        "{refused}"
    );
    let (status, host) = client.get("/farm/v1/hosts/host1", &reader).await;
    assert_eq!((status, &host["alive"]), (StatusCode::OK, &json!(false)));
    assert!(
        store
            .revoke_token(&"reader".parse().unwrap())
            .await
            .unwrap()
    );
    let (status, _) = client.get("/farm/v1/queue", &reader).await;
    assert_eq!(
        status,
        StatusCode::FORBIDDEN,
        "a revoked token opens nothing"
    );
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn lists_have_filters_pages_and_reasons() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let (client, server) = serve(&store).await;
    let [reader, ci, root] = tokens(&store).await;
    for (token, submitter) in [(&ci, Value::Null), (&root, json!("ann"))] {
        let build = new_build(token, &submitter);
        let (status, answer) = client.post("/farm/v1/builds", token, &build).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
    let (status, page) = client
        .get("/farm/v1/builds?count=1&package=hello", &reader)
        .await;
    assert_eq!(
        (status, &page["next"]),
        (StatusCode::OK, &json!(2)),
        "{page}"
    );
    assert_eq!(page["builds"][0]["submitter"], "ann");
    let (_, page) = client
        .get("/farm/v1/builds?project=image&before=2", &reader)
        .await;
    let build = &page["builds"][0];
    assert_eq!(
        (&build["build"], &build["submitter"]),
        (&json!(1), &json!("token:ci"))
    );
    assert_eq!(
        (&page["next"], &build["state"]),
        (&Value::Null, &json!("queued"))
    );
    let (_, queue) = client.get("/farm/v1/queue", &reader).await;
    assert_eq!(
        (&queue["queued"], &queue["waiting"][0]["build"]),
        (&json!(2), &json!(1))
    );
    assert!(
        queue["waiting"][0]["why"]
            .as_str()
            .unwrap()
            .starts_with("no host"),
        "{queue}"
    );
    let (status, refusal) = client.get("/farm/v1/builds?colour=red", &reader).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refusal}");
    server.abort();
}

/// Makes a token of each scope.
async fn tokens(store: &Store) -> [String; 3] {
    for (name, scope) in [
        ("reader", Scope::Read),
        ("ci", Scope::Submit),
        ("root", Scope::Admin),
    ] {
        let name = name.parse().unwrap();
        let token = secret::hash(&format!("the token of {name}"));
        assert!(store.add_token(&name, scope, token).await.unwrap());
    }
    ["reader", "ci", "root"].map(|it| format!("the token of {it}"))
}

/// Returns the request for a build of a project.
fn new_build(key: &str, submitter: &Value) -> Value {
    let requirements = &submission(key).requirements;
    json!({ "key": key, "submitter": submitter, "requirements": requirements,
        "target": "hello", "project": "image" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn every_error_is_json_with_a_sentence() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let (client, _server) = serve(&store).await;
    let large = json!({ "key": "x".repeat(2 << 20) });
    let refused = [
        client.get("/farm/v1/nothing", TOKEN).await,
        client.get("/farm/v1/poll", TOKEN).await,
        client.post("/farm/v1/builds", TOKEN, &json!({})).await,
        client.post("/farm/v1/builds", TOKEN, &large).await,
    ];
    let expected = [404, 405, 422, 413];
    for ((status, answer), expected) in refused.iter().zip(expected) {
        assert_eq!(status.as_u16(), expected);
        let sentence = answer["error"].as_str().unwrap();
        assert!(sentence.len() > 20, "{sentence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_flood_of_unknown_keys_is_refused_and_hosts_still_work() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    store.invite(secret::hash("t"), "one", 60).await.unwrap();
    let (client, _server) = serve(&store).await;
    let key = "1".repeat(64);
    let enrolment = json!({ "token": "t", "key": key });
    let (status, _) = client.post("/farm/v1/enrol", "", &enrolment).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = client.poll(&key, 1, json!([])).await;
    assert_eq!(status, StatusCode::OK);
    let mut refused = StatusCode::UNAUTHORIZED;
    for guess in 0..5_000 {
        refused = client.poll(&format!("guess {guess}"), 1, json!([])).await.0;
        if refused != StatusCode::UNAUTHORIZED {
            break;
        }
    }
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    let (status, _) = client.poll(&key, 2, json!([])).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn held_polls_are_answered_when_there_are_orders_and_when_the_coordinator_stops() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    store.invite(secret::hash("t"), "one", 60).await.unwrap();
    // Without the order, the test would end by the time limit of the runner.
    let terms = farm_core::Terms {
        hold_ms: 3_600_000,
        ..TERMS
    };
    let service = Arc::new(Service {
        coordinator: Coordinator::new(store.clone(), terms),
        client_token: Some(secret::hash(TOKEN)).into(),
        attempts: Attempts::default(),
        name: "camera farm".to_owned(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async move {
        let _ = stopped.await;
    };
    let server = tokio::spawn(farm::server::serve(listener, service, stopped));
    let http = reqwest::Client::new();
    let client = Arc::new(Client { base, http });
    let key = "1".repeat(64);
    let enrolment = json!({ "token": "t", "key": key });
    client.post("/farm/v1/enrol", "", &enrolment).await;
    let held = |number: u64| {
        let (client, key) = (Arc::clone(&client), key.clone());
        let id = json!({ "incarnation": 1, "number": number });
        let poll = json!({ "id": id, "held": [], "hold_ms": 3_600_000, "offer": offer(0) });
        tokio::spawn(async move { client.post("/farm/v1/poll", &key, &poll).await })
    };
    let beaten = |beats| move |beat| beat >= beats;
    let beat = "SELECT beat FROM hosts";
    let drained = held(1);
    super::farm::wait_for(&cluster, beat, beaten(1)).await;
    let (status, _) = client
        .post("/farm/v1/hosts/one/drain", TOKEN, &json!(null))
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(drained.await.unwrap().0, StatusCode::OK);
    let last = held(2);
    super::farm::wait_for(&cluster, beat, beaten(2)).await;
    stop.send(()).unwrap();
    assert_eq!(last.await.unwrap().0, StatusCode::OK);
    server.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_host_gets_no_builds_in_its_window_and_before_it_only_short_ones() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let (client, server) = serve(&store).await;
    let (token, one) = (secret::hash("t1"), "1".repeat(64));
    store.invite(token, "one", 60).await.unwrap();
    let enrolled = store.enrol(token, secret::hash(&one)).await.unwrap();
    assert!(enrolled.is_some());
    let path = "/farm/v1/hosts/one/windows";
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| {
        now.checked_add(jiff::SignedDuration::from_secs(seconds))
            .unwrap()
    };
    let soon = json!({ "from": at(300), "until": at(3600), "reason": "kernel" });
    let (status, added) = client.post(path, TOKEN, &soon).await;
    assert_eq!((status, &added), (StatusCode::OK, &json!({ "window": 1 })));
    let (_, again) = client.post(path, TOKEN, &soon).await;
    assert_eq!(again, added, "the same occurrence is one window");
    let build = new_build("k1", &Value::Null);
    client.post("/farm/v1/builds", TOKEN, &build).await;
    let (_, answer) = client.poll(&one, 1, json!([])).await;
    assert_eq!(answer["leases"], json!([]), "it counts as ten minutes");
    let (_, shown) = client.get("/farm/v1/builds/1", TOKEN).await;
    let why = shown["why"].as_str().unwrap();
    assert!(
        why.contains("maintenance begins at") && why.contains("kernel"),
        "{why}"
    );
    let open = json!({ "from": at(-60), "until": at(60), "reason": "disks" });
    let (_, added) = client.post(path, TOKEN, &open).await;
    assert_eq!(added, json!({ "window": 2 }));
    let (_, shown) = client.get("/farm/v1/hosts/one", TOKEN).await;
    assert_eq!(shown["windows"][0]["open"], json!(true), "{shown}");
    let (_, shown) = client.get("/farm/v1/builds/1", TOKEN).await;
    let why = shown["why"].as_str().unwrap();
    assert!(
        why.contains("maintenance until") && why.contains("disks"),
        "{why}"
    );
    for window in [1, 2] {
        let (_, answer) = client.poll(&one, 1 + window, json!([])).await;
        assert_eq!(answer["leases"], json!([]));
        let status = client.delete(&format!("{path}/{window}"), TOKEN).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let (_, answer) = client.poll(&one, 9, json!([])).await;
    assert_eq!(answer["leases"][0]["lease"]["build"], json!(1));
    let wrong = json!({ "weekly": { "days": ["sun"], "from": "02:00:00", "until": "04:00:00", "zone": "Mars/Olympus" } });
    let (status, refused) = client.post(path, TOKEN, &wrong).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    server.abort();
}
