//! The conformance of answers to the description of the interface: scopes, statuses and bodies.

use config::tokens::Scope;
use farm::api::OPENAPI;
use farm::secret;
use farm_store::Store;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use server_tests::{Cluster, Description, Operation};
use tokio::task::block_in_place;

use super::farm::open;
use super::host::offer;
use super::server::Server;

/// The scopes, each of which includes those before it.
const SCOPES: [(&str, Scope); 3] = [
    ("read", Scope::Read),
    ("submit", Scope::Submit),
    ("admin", Scope::Admin),
];

/// A client that compares each answer with the description.
struct Client {
    server: Server,
    description: Description,
    key: String,
}

impl Client {
    async fn start(store: &Store) -> Self {
        let server = Server::start(store).await;
        for (name, scope) in SCOPES {
            let token = name.parse().unwrap();
            let added = store.add_token(&token, scope, secret::hash(name)).await;
            assert!(added.unwrap());
        }
        let key = server.keys(store, &["host1"]).await.remove(0);
        Self {
            server,
            description: Description::parse(OPENAPI),
            key,
        }
    }

    /// Sends a request, compares the answer, and returns its status and body.
    async fn ask(
        &self,
        secret: Option<&str>,
        (method, route, path): (&str, &str, &str),
        body: Option<&Value>,
    ) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.server.base);
        let mut request = self.server.http.request(method.clone(), url);
        if let Some(secret) = secret {
            request = request.bearer_auth(secret);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap();
        let (status, kind) = (answer.status().as_u16(), content_type(&answer));
        let text = answer.text().await.unwrap();
        let described =
            self.description
                .check(method.as_str(), route, status, kind.as_deref(), &text);
        (status, described)
    }

    async fn get(&self, route: &str, path: &str) -> (u16, Value) {
        self.ask(Some("read"), ("GET", route, path), None).await
    }
}

fn content_type(answer: &Response) -> Option<String> {
    let value = answer.headers().get("content-type");
    value.map(|it| it.to_str().unwrap().to_owned())
}

/// A SHA-256 hash.
const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// Returns a path of a route, of things that the farm does not have.
fn path_of(route: &str) -> String {
    let names = [
        ("{build}", "77"),
        ("{digest}", DIGEST),
        ("{host}", "nobody"),
        ("{machine}", "linux"),
        ("{name}", "x"),
        ("{revision}", "1"),
        ("{transfer}", "x"),
        ("{window}", "1"),
    ];
    let path = names.iter().fold(route.to_owned(), |path, (name, value)| {
        path.replace(name, value)
    });
    assert!(!path.contains('{'), "{path} has another parameter");
    path
}

/// Returns the secrets that an operation admits, of those of the test.
fn admitted(operation: &Operation) -> Vec<&'static str> {
    let security = &operation.definition["security"][0];
    if let Some(needed) = security["client"][0].as_str() {
        let from = SCOPES.iter().position(|(name, _)| *name == needed);
        let names = SCOPES[from.unwrap()..].iter().map(|(name, _)| *name);
        return names.collect();
    }
    if security["host"].is_array() {
        vec!["host"]
    } else if security["coordinator"].is_array() {
        // None of the test has the key of one.
        Vec::new()
    } else {
        vec!["nothing", "read", "submit", "admin", "host"]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn every_route_admits_exactly_the_described_tokens_and_keys() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let client = Client::start(&store).await;
    for operation in client.description.operations() {
        let Operation {
            method,
            route,
            definition,
        } = &operation;
        let path = path_of(route);
        let body = &definition["requestBody"]["content"]["application/json"]["example"];
        let body = (!body.is_null()).then_some(body);
        let admitted = admitted(&operation);
        for name in ["nothing", "read", "submit", "admin", "host"] {
            let secret = match name {
                "nothing" => None,
                "host" => Some(client.key.as_str()),
                scope => Some(scope),
            };
            let (status, _) = client.ask(secret, (method, route, &path), body).await;
            // An unknown token is a part of the body of an enrolment.
            let is_admitted = !matches!(status, 401 | 403) || route == "/farm/v1/enrol";
            let expected = admitted.contains(&name);
            assert_eq!(
                is_admitted, expected,
                "{method} {route} with {name}: {status}"
            );
        }
    }
}

/// Reads everything that a farm with builds has, and things that it does not have.
async fn check_reads(client: &Client) {
    for (route, path) in [
        ("/farm/v1/builds", "/farm/v1/builds?count=1"),
        ("/farm/v1/builds", "/farm/v1/builds"),
        ("/farm/v1/builds/{build}", "/farm/v1/builds/1"),
        ("/farm/v1/queue", "/farm/v1/queue"),
        ("/farm/v1/hosts", "/farm/v1/hosts"),
        ("/farm/v1/hosts/{host}", "/farm/v1/hosts/host1"),
        ("/farm/v1/machines", "/farm/v1/machines"),
        ("/farm/v1/schedules", "/farm/v1/schedules"),
        ("/farm/v1/projects", "/farm/v1/projects"),
        ("/farm/v1/openapi.json", "/farm/v1/openapi.json"),
        ("/metrics", "/metrics"),
    ] {
        let (status, body) = client.get(route, path).await;
        assert!(status == 200 && !body.is_null(), "{path}: {status} {body}");
    }
    for (route, path, expected) in [
        ("/farm/v1/builds", "/farm/v1/builds?colour=red", 400),
        ("/farm/v1/builds/{build}", "/farm/v1/builds/x", 400),
        ("/farm/v1/builds/{build}", "/farm/v1/builds/99", 404),
        ("/farm/v1/hosts/{host}", "/farm/v1/hosts/nobody", 404),
    ] {
        assert_eq!(client.get(route, path).await.0, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn answers_conform_to_the_description() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let client = Client::start(&store).await;
    let post = |secret: &'static str, path: &'static str, body: Value| {
        let client = &client;
        async move {
            client
                .ask(Some(secret), ("POST", path, path), Some(&body))
                .await
        }
    };
    let host = |path: &'static str, body: Value| {
        let client = &client;
        async move {
            let request = ("POST", path, path);
            client.ask(Some(&client.key), request, Some(&body)).await
        }
    };
    let builds = "/farm/v1/builds";
    let needs = json!({ "machine": "linux", "toolchain": "default", "cpus": 1, "memory_mib": 1 });
    for key in ["a", "b", "c"] {
        let build = json!({ "key": key, "requirements": needs, "target": "hello" });
        assert_eq!(post("submit", builds, build).await.0, 201);
    }
    let foreign = json!({ "key": "d", "requirements": needs, "submitter": "ann" });
    assert_eq!(post("submit", builds, foreign).await.0, 403);
    for (body, expected) in [
        (json!({ "key": 1 }), 422),
        (json!("x".repeat(1 << 20)), 413),
    ] {
        assert_eq!(post("submit", builds, body).await.0, expected);
    }
    let poll = json!({ "id": { "incarnation": 1, "number": 1 }, "held": [], "offer": offer(0) });
    let (_, answer) = host("/farm/v1/poll", poll).await;
    let lease = answer["leases"][0]["lease"].clone();
    let report = json!({ "lease": lease, "outcome": "success" });
    for expected in [204, 204] {
        assert_eq!(host("/farm/v1/report", report.clone()).await.0, expected);
    }
    let stale = json!({ "lease": { "build": 2, "epoch": 99 }, "outcome": "error" });
    assert_eq!(host("/farm/v1/report", stale).await.0, 409);
    check_reads(&client).await;
    let publish = (
        "POST",
        "/farm/v1/machines/{machine}",
        "/farm/v1/machines/linux",
    );
    let revision = json!({ "revision": 4, "content": DIGEST });
    let (status, current) = client.ask(Some("admin"), publish, Some(&revision)).await;
    assert_eq!((status, current), (200, revision));
    ask_about_trials(&client).await;
    let cancel = |path: &'static str| {
        client.ask(
            Some("submit"),
            ("POST", "/farm/v1/builds/{build}/cancel", path),
            None,
        )
    };
    assert_eq!(cancel("/farm/v1/builds/1/cancel").await.0, 409);
    assert_eq!(cancel("/farm/v1/builds/3/cancel").await.0, 204);
}

/// Puts revisions on trial, and ends the trials.
async fn ask_about_trials(client: &Client) {
    let ask = |revision: u64| {
        let candidate = json!({ "revision": revision, "content": DIGEST, "canary": "3 of 10" });
        let begin = (
            "POST",
            "/farm/v1/machines/{machine}",
            "/farm/v1/machines/linux",
        );
        async move { client.ask(Some("admin"), begin, Some(&candidate)).await.0 }
    };
    let end = |route: &'static str, path: &'static str| async move {
        client
            .ask(Some("admin"), ("POST", route, path), None)
            .await
            .0
    };
    let rollback = || {
        end(
            "/farm/v1/machines/{machine}/rollback",
            "/farm/v1/machines/linux/rollback",
        )
    };
    let promote = || {
        end(
            "/farm/v1/machines/{machine}/promote",
            "/farm/v1/machines/linux/promote",
        )
    };
    assert_eq!((rollback().await, ask(4).await), (404, 409));
    assert_eq!((ask(5).await, rollback().await), (200, 200));
    assert_eq!((ask(5).await, promote().await), (200, 200));
    assert_eq!(promote().await, 404);
}
