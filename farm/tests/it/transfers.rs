//! Logs, artifacts and images that travel from one host through a coordinator.

use std::time::Duration;

use axum::http::StatusCode;
use farm_core::messages::{Reply, Request};
use farm_core::transfers::{PROTOCOL, STATUS};
use farm_core::{HostId, OfferedMachine, Revision};
use serde_json::{Value, json};
use server_tests::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::farm::{open, submit};
use super::host::offer;
use super::server::Server;

/// The pause between two polls: other coordinators look for transfers once a second.
const PAUSE: Duration = Duration::from_millis(50);

/// A host that polls and sends what it is asked for.
struct Host {
    client: Server,
    key: String,
    polls: u64,
    /// The transfers that it has begun. An answer may repeat them.
    known: Vec<Value>,
}

impl Host {
    async fn poll(&mut self, held: Value) -> Value {
        self.polls += 1;
        self.client.poll(&self.key, self.polls, held).await
    }

    /// Polls until a transfer is wanted.
    async fn order(&mut self, held: &Value) -> Value {
        for _ in 0..400 {
            let answer = self.poll(held.clone()).await;
            let orders = answer["transfers"].as_array().cloned().unwrap_or_default();
            let new = |it: &&Value| !self.known.contains(&it["id"]);
            if let Some(order) = orders.iter().find(new) {
                self.known.push(order["id"].clone());
                return order.clone();
            }
            sleep(PAUSE).await;
        }
        panic!("no transfer is wanted");
    }

    async fn send(&self, order: &Value, status: u16, content: &str) -> u16 {
        let request = self.client.http.post(address(order));
        let request = request.bearer_auth(&self.key).header(STATUS, status);
        let request = request.header("Content-Type", "text/plain");
        let answer = request.body(content.to_owned()).send().await.unwrap();
        answer.status().as_u16()
    }

    async fn switch(&self, url: String) -> reqwest::Response {
        let request = self.client.http.get(url).bearer_auth(&self.key);
        let request = request.header("Connection", "upgrade");
        request.header("Upgrade", PROTOCOL).send().await.unwrap()
    }
}

/// Returns the address to which an order is sent.
fn address(order: &Value) -> String {
    let part = |name: &str| order[name].as_str().unwrap().to_owned();
    let (coordinator, id) = (part("coordinator"), part("id"));
    format!("{coordinator}/farm/v1/transfers/{id}")
}

/// Waits until a coordinator sees a host.
async fn seen(client: &Server, build: u64, host: &mut Host, held: &Value) {
    for _ in 0..100 {
        host.poll(held.clone()).await;
        let path = format!("/farm/v1/builds/{build}/log?offset=oops");
        let (status, _) = client.get(&path).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        if !client.coordinator().alive().hosts.is_empty() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the coordinator sees no host");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_log_comes_from_its_host_through_another_coordinator() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    let (here, there) = (Server::start(&store).await, Server::start(&store).await);
    let keys = there.keys(&store, &["host1", "host2"]).await;
    let mut host = Host {
        client: there.clone(),
        key: keys[0].clone(),
        polls: 0,
        known: Vec::new(),
    };
    let other = Host {
        client: here.clone(),
        key: keys[1].clone(),
        polls: 0,
        known: Vec::new(),
    };
    let build = submit(here.coordinator(), "k").await.0;
    let (status, answer) = here.get(&format!("/farm/v1/builds/{build}/log")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    let held = json!([host.poll(json!([])).await["leases"][0]["lease"]]);
    seen(&here, build, &mut host, &held).await;

    // The host polls one coordinator, and the client asks the other one.
    let path = format!("/farm/v1/builds/{build}/log?offset=3&follow=true");
    let log = tokio::spawn({
        let here = here.clone();
        async move { here.text(&path).await }
    });
    let order = host.order(&held).await;
    let wanted = json!({ "kind": "log", "lease": held[0], "offset": 3, "follow": true });
    assert_eq!(
        (&order["wanted"], &order["coordinator"]),
        (&wanted, &json!(here.base))
    );
    assert_eq!(other.send(&order, 200, "a lie").await, 410);
    assert_eq!(host.send(&order, 200, "lo, world\n").await, 204);
    assert_eq!(
        log.await.unwrap(),
        (StatusCode::OK, "lo, world\n".to_owned())
    );
    assert_eq!(host.send(&order, 200, "once more").await, 410);

    // The agent's refusal reaches the client.
    let artifact = tokio::spawn({
        let here = here.clone();
        async move {
            here.text(&format!("/farm/v1/builds/{build}/artifacts/a.tar"))
                .await
        }
    });
    let order = host.order(&held).await;
    assert_eq!(order["wanted"]["name"], json!("a.tar"));
    host.send(&order, 404, "{\"error\":\"no such artifact\"}")
        .await;
    assert_eq!(artifact.await.unwrap().0, StatusCode::NOT_FOUND);

    // A host that is away is named.
    while here.coordinator().alive().hosts.contains_key(&HostId(1)) {
        sleep(Duration::from_millis(50)).await;
    }
    let (_, answer) = here
        .get(&format!("/farm/v1/builds/{build}/artifacts"))
        .await;
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.starts_with("host host1 has the files of build 1 and "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn an_image_travels_between_two_hosts_without_ports() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    let coordinator = Server::start(&store).await;
    let keys = coordinator.keys(&store, &["host1", "host2"]).await;
    let client = coordinator.clone();
    let host = |key: &str| Host {
        client: client.clone(),
        key: key.to_owned(),
        polls: 0,
        known: Vec::new(),
    };
    let (mut source, receiver) = (host(&keys[0]), host(&keys[1]));
    let image = format!("{}/farm/v1/machines/linux/revisions/7", client.base);
    let refused = receiver.switch(image.clone()).await;
    assert_eq!(refused.status().as_u16(), 503);

    let mut offer = offer(0);
    let machine = OfferedMachine {
        revision: Revision(7),
        ..OfferedMachine::default()
    };
    offer.machines.insert("linux".parse().unwrap(), machine);
    let id = serde_json::from_value(json!({ "incarnation": 7, "number": 0 })).unwrap();
    let held = Vec::new();
    let poll = farm_core::messages::Poll {
        id,
        held,
        hold_ms: super::farm::TERMS.hold_ms,
        offer,
    };
    let reply = client
        .coordinator()
        .handle(Request::Poll(HostId(1), poll))
        .await;
    assert!(matches!(reply, Reply::Leases(_)));
    while client
        .coordinator()
        .alive()
        .hosts
        .get(&HostId(1))
        .is_none_or(|row| {
            row.offer
                .machines
                .values()
                .all(|it| it.revision != Revision(7))
        })
    {
        sleep(Duration::from_millis(20)).await;
    }
    let fetched = tokio::spawn(async move { receiver.switch(image).await });
    let order = source.order(&json!([])).await;
    let wanted = json!({ "kind": "image", "machine": "linux", "revision": 7 });
    assert_eq!(order["wanted"], wanted);
    let sent = source.switch(address(&order)).await;
    assert_eq!(sent.status().as_u16(), 101);
    let mut sent = sent.upgrade().await.unwrap();
    let fetched = fetched.await.unwrap();
    assert_eq!(fetched.status().as_u16(), 101);
    let mut fetched = fetched.upgrade().await.unwrap();
    fetched.write_all(b"question").await.unwrap();
    let mut question = [0; 8];
    sent.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"question");
    let content = vec![7; 3 << 20];
    sent.write_all(&content).await.unwrap();
    sent.shutdown().await.unwrap();
    let mut arrived = Vec::new();
    fetched.read_to_end(&mut arrived).await.unwrap();
    assert!(arrived == content);
}
