//! Trials of revisions over real coordinators, whose watch gives the verdicts.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::farm::{open, submission};
use super::host::offer;
use super::server::Server;

/// A farm with one host, which has revision 1 of a machine and tries revision 2.
struct Farm {
    server: Server,
    key: String,
    polls: u64,
}

impl Farm {
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.server.send(Method::POST, path, body.to_string()).await;
        (answer.0.as_u16(), answer.1)
    }

    async fn as_host(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.server.base);
        let request = self.server.http.post(url).json(body);
        let answer = request.bearer_auth(&self.key).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    async fn poll(&mut self, held: Value) -> Value {
        self.polls += 1;
        let mut offer = serde_json::to_value(offer(0)).unwrap();
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let trial = json!({ "revision": 2, "content": two, "toolchains": ["default"] });
        offer["machines"]["linux"]["revision"] = json!(1);
        offer["machines"]["linux"]["content"] = json!(one);
        offer["machines"]["linux"]["trial"] = trial;
        let id = json!({ "incarnation": 1, "number": self.polls });
        let poll = json!({ "id": id, "held": held, "offer": offer });
        let (status, answer) = self.as_host("/farm/v1/poll", &poll).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Polls until the host gets a build.
    async fn grant(&mut self) -> Value {
        let started = Instant::now();
        loop {
            let answer = self.poll(json!([])).await;
            if let Some(grant) = answer["leases"].get(0) {
                return grant.clone();
            }
            assert!(started.elapsed() < Duration::from_mins(1), "{answer}");
        }
    }

    async fn report(&self, grant: &Value, outcome: &str) {
        let report = json!({ "lease": grant["lease"], "outcome": outcome });
        for _ in 0..2 {
            assert_eq!(self.as_host("/farm/v1/report", &report).await.0, 204);
        }
    }

    async fn submit(&self, key: &str) {
        let build = serde_json::to_value(submission(key)).unwrap();
        assert_eq!(self.post("/farm/v1/builds", &build).await.0, 201);
    }

    async fn machine(&self) -> Value {
        self.server.get("/farm/v1/machines").await.1[0].take()
    }

    /// Waits for the verdict of the watch.
    async fn verdict(&self) -> Value {
        let started = Instant::now();
        loop {
            let machine = self.machine().await;
            if machine["trial"]["verdict"].is_string() {
                return machine;
            }
            assert!(started.elapsed() < Duration::from_mins(1), "{machine}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_candidate_is_rolled_back_by_a_build_that_it_breaks_and_promoted_by_one_that_it_does_not()
{
    const LINUX: &str = "/farm/v1/machines/linux";
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let server = Server::start(&store).await;
    let key = server.keys(&store, &["one"]).await.remove(0);
    let mut farm = Farm {
        server,
        key,
        polls: 0,
    };
    farm.poll(json!([])).await;
    let candidate = json!({ "revision": 2, "canary": "1/1" });
    let (status, refused) = farm.post(LINUX, &candidate).await;
    assert_eq!(status, 404, "nothing is published yet: {refused}");
    assert_eq!(farm.post(LINUX, &json!({ "revision": 1 })).await.0, 200);
    let (status, begun) = farm.post(LINUX, &candidate).await;
    assert_eq!((status, &begun["content"]), (200, &json!("2".repeat(64))));

    farm.submit("first").await;
    let first = farm.grant().await;
    assert_eq!(first["trial"], 2);
    farm.report(&first, "error").await;
    let build = farm.server.get("/farm/v1/builds/1").await.1;
    assert_eq!(
        (&build["state"], &build["losses"]),
        (&json!("queued"), &json!(0))
    );
    let run = json!({ "revision": 2, "outcome": "error", "repeated": true });
    assert_eq!(build["trial"], run);
    let again = farm.grant().await;
    assert_eq!(
        (&again["lease"]["epoch"], &again["trial"]),
        (&json!(2), &Value::Null)
    );
    farm.report(&again, "success").await;
    let trial = farm.verdict().await["trial"].take();
    let reason = "build 1 of linux (error) failed on it and succeeded on revision 1";
    assert_eq!(
        (&trial["verdict"], &trial["reason"]),
        (&json!("rolled_back"), &json!(reason))
    );
    let told = farm.poll(json!([])).await;
    assert_eq!(told["trials"]["linux"]["rolled_back"], reason);

    assert_eq!(farm.post(LINUX, &candidate).await.0, 200);
    farm.submit("second").await;
    let second = farm.grant().await;
    assert_eq!(second["trial"], 2);
    farm.report(&second, "success").await;
    let machine = farm.verdict().await;
    assert_eq!(
        (&machine["revision"], &machine["trial"]["verdict"]),
        (&json!(2), &json!("promoted"))
    );
    let told = farm.poll(json!([])).await;
    assert_eq!(
        (&told["published"]["linux"]["revision"], &told["trials"]),
        (&json!(2), &Value::Null)
    );
    let (status, refused) = farm.post(LINUX, &candidate).await;
    assert_eq!(status, 409, "{refused}");
    let (_, metrics) = farm.server.text("/metrics").await;
    for line in [
        "buildhost_farm_trials_total{verdict=\"rolled_back\"} 1",
        "buildhost_farm_trials_total{verdict=\"promoted\"} 1",
        "buildhost_farm_trials_open 0",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}
