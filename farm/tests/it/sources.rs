//! Sources of builds: uploaded to one coordinator, copied to a second one, and fetched through any.

use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use config::task::Digest;
use farm::sources::Rules;
use farm_store::Store;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use server_tests::{Cluster, RunningProgram, command};
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::farm::{number, open, wait_for};
use super::server::{Server, TOKEN};

const CONTENT: &[u8] = b"the sources of a build";

fn rules(directory: &Path) -> Rules {
    Rules {
        directory: Some(directory.to_owned()),
        bytes_max: 1 << 20,
        keep_days: 7,
        ca: None,
    }
}

/// Two coordinators with a directory each.
struct Pair {
    servers: [Server; 2],
    directories: [TempDir; 2],
    key: String,
    _store: Store,
}

impl Pair {
    async fn start(cluster: &Cluster) -> Self {
        let store = open(&cluster.url(), 1).await;
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let one = Server::start_with(&store, Some(rules(directories[0].path()))).await;
        let two = Server::start_with(&store, Some(rules(directories[1].path()))).await;
        let [key] = &one.keys(&store, &["host1"]).await[..] else {
            panic!("one key");
        };
        let key = key.clone();
        let pair = Self {
            servers: [one, two],
            directories,
            key,
            _store: store,
        };
        // Each sees the other one.
        for server in &pair.servers {
            while server.coordinator().alive().keepers.alive.len() < 2 {
                sleep(Duration::from_millis(20)).await;
            }
        }
        pair
    }

    /// Deletes the sources that are not needed any more.
    async fn clean(&self) {
        for server in &self.servers {
            let sources = server.coordinator().sources().unwrap();
            sources.clean().await.unwrap();
        }
    }

    fn file(&self, server: usize, digest: &Digest) -> std::path::PathBuf {
        self.directories[server].path().join(digest.as_str())
    }
}

fn path(digest: &Digest) -> String {
    format!("/farm/v1/sources/{digest}")
}

/// Returns the document that submits a build with sources.
fn build(key: &str, digests: &[&Digest]) -> String {
    let sources = digests.iter().enumerate();
    let sources = sources.map(|(number, it)| json!({ "name": format!("s{number}"), "sha256": it }));
    json!({
        "key": key,
        "requirements": {
            "machine": "linux", "toolchain": "default", "cpus": 1, "memory_mib": 1,
            "work": { "sources": sources.collect::<Vec<_>>() },
        },
    })
    .to_string()
}

/// Fetches a source as a host.
async fn fetch(base: &str, key: &str, digest: &Digest) -> (u16, Vec<u8>) {
    let request = reqwest::Client::new().get(format!("{base}{}", path(digest)));
    let answer = request.bearer_auth(key).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.bytes().await.unwrap().to_vec())
}

fn error(answer: &Value) -> &str {
    answer["error"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_build_is_accepted_when_two_coordinators_have_its_sources() {
    let cluster = block_in_place(Cluster::start);
    let pair = Pair::start(&cluster).await;
    let [one, two] = &pair.servers;
    let digest = sys::file::digest_of(CONTENT);
    let submission = build("k", &[&digest]);

    // Nobody has them yet.
    let (status, answer) = one
        .send(Method::POST, "/farm/v1/builds", submission.clone())
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(
        error(&answer).contains(&format!("has s0 ({digest})")),
        "{answer}"
    );
    let offer = format!("{}/offer?bytes={}", path(&digest), CONTENT.len());
    assert_eq!(one.get(&offer).await.1, json!({ "wanted": true }));

    let (status, _) = two.send(Method::PUT, &path(&digest), CONTENT).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(one.get(&offer).await.1, json!({ "wanted": false }));
    assert!(!pair.file(0, &digest).exists());
    let (status, answer) = one
        .send(Method::POST, "/farm/v1/builds", submission.clone())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    for server in 0..2 {
        assert_eq!(std::fs::read(pair.file(server, &digest)).unwrap(), CONTENT);
    }
    let again = two.send(Method::POST, "/farm/v1/builds", submission).await;
    assert_eq!(again.1, answer, "one build");

    let lease = &one.poll(&pair.key, 1, json!([])).await["leases"][0];
    let named = &lease["requirements"]["work"]["sources"][0]["sha256"];
    assert_eq!(named, digest.as_str(), "{lease}");
    let fetched = fetch(&two.base, &pair.key, &digest).await;
    assert_eq!(fetched, (200, CONTENT.to_vec()));
    let stranger = fetch(&two.base, &"x".repeat(64), &digest).await;
    assert_eq!(stranger.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_wrong_a_large_and_a_changed_source_are_refused_at_each_hop() {
    let cluster = block_in_place(Cluster::start);
    let pair = Pair::start(&cluster).await;
    let [one, two] = &pair.servers;
    let digest = sys::file::digest_of(CONTENT);
    let (status, answer) = one
        .send(Method::PUT, &path(&digest), "something else")
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error(&answer).contains("nothing was stored"), "{answer}");
    let large = vec![7; (1 << 20) + 1];
    let of_large = sys::file::digest_of(&large);
    let (status, answer) = one.send(Method::PUT, &path(&of_large), large).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
    let offer = format!("{}/offer?bytes={}", path(&of_large), (1 << 20) + 1);
    let (status, answer) = one.get(&offer).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(error(&answer).contains("at most 1048576 bytes"), "{answer}");
    for directory in &pair.directories {
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    // A file that has changed on the disk is not sent, neither to a host nor to the other coordinator.
    one.send(Method::PUT, &path(&digest), CONTENT).await;
    sys::file::replace(&pair.file(0, &digest), b"something else").unwrap();
    assert_eq!(fetch(&two.base, &pair.key, &digest).await.0, 503);
    assert!(!pair.file(0, &digest).exists() && !pair.file(1, &digest).exists());
    assert_eq!(fetch(&two.base, &pair.key, &digest).await.0, 404);

    // With a second copy it is mended.
    one.send(Method::PUT, &path(&digest), CONTENT).await;
    assert_eq!(fetch(&two.base, &pair.key, &digest).await.0, 200);
    sys::file::replace(&pair.file(0, &digest), b"something else").unwrap();
    let fetched = fetch(&one.base, &pair.key, &digest).await;
    assert_eq!(fetched, (200, CONTENT.to_vec()));
    assert_eq!(std::fs::read(pair.file(0, &digest)).unwrap(), CONTENT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_build_whose_source_is_lost_waits_says_so_and_continues_after_an_upload() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(&store, Some(rules(directory.path()))).await;
    let key = server.keys(&store, &["host1"]).await.remove(0);
    let digest = sys::file::digest_of(CONTENT);
    server.send(Method::PUT, &path(&digest), CONTENT).await;
    let submit = server.send(Method::POST, "/farm/v1/builds", build("k", &[&digest]));
    assert_eq!(submit.await.0, StatusCode::CREATED);
    std::fs::remove_file(directory.path().join(digest.as_str())).unwrap();
    assert_eq!(fetch(&server.base, &key, &digest).await.0, 404);

    let answer = server.poll(&key, 1, json!([])).await;
    assert_eq!(answer["leases"], json!([]), "it is not given to a host");
    let (_, view) = server.get("/farm/v1/builds/1").await;
    let why = view["why"].as_str().unwrap();
    assert!(
        why.starts_with("its source s0 is on no coordinator any more"),
        "{why}"
    );

    server.send(Method::PUT, &path(&digest), CONTENT).await;
    for poll in 2.. {
        let answer = server.poll(&key, poll, json!([])).await;
        if answer["leases"][0]["lease"]["build"] == 1 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_source_is_deleted_when_no_unfinished_build_names_it_and_its_days_are_over() {
    let cluster = block_in_place(Cluster::start);
    let pair = Pair::start(&cluster).await;
    let one = &pair.servers[0];
    let (needed, idle) = (sys::file::digest_of(CONTENT), sys::file::digest_of(b"idle"));
    one.send(Method::PUT, &path(&needed), CONTENT).await;
    one.send(Method::PUT, &path(&idle), "idle").await;
    let submit = one.send(Method::POST, "/farm/v1/builds", build("k", &[&needed]));
    assert_eq!(submit.await.0, StatusCode::CREATED);
    pair.clean().await;
    assert!(pair.file(0, &idle).exists(), "its days are not over");
    let age = "WITH aged AS (UPDATE sources SET used = now() - interval '8 days' RETURNING 1)
        SELECT count(*) FROM aged";
    assert_eq!(number(&cluster, age), Some(2));
    pair.clean().await;
    assert!(!pair.file(0, &idle).exists());
    assert!(pair.file(0, &needed).exists() && pair.file(1, &needed).exists());

    // The build ends, and the last coordinator finds the files after it was started again.
    one.send(Method::POST, "/farm/v1/builds/1/cancel", "").await;
    wait_for(&cluster, "SELECT count(*) FROM builds", |it| it == 0).await;
    pair.clean().await;
    assert!(!pair.file(0, &needed).exists() && !pair.file(1, &needed).exists());
    let rows = "SELECT count(*) FROM source_copies";
    assert_eq!(number(&cluster, rows), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_schedule_keeps_its_sources_and_every_run_has_them() {
    let cluster = block_in_place(Cluster::start);
    let pair = Pair::start(&cluster).await;
    let [one, two] = &pair.servers;
    let digest = sys::file::digest_of(CONTENT);
    let mut schedule: Value = serde_json::from_str(&build("k", &[&digest])).unwrap();
    schedule["name"] = json!("nightly");
    schedule["timing"] = json!({ "cron": { "pattern": "0 3 * * *", "zone": "UTC" } });
    let add = || one.send(Method::POST, "/farm/v1/schedules", schedule.to_string());
    let (status, answer) = add().await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(
        error(&answer).contains(&format!("has s0 ({digest})")),
        "{answer}"
    );
    one.send(Method::PUT, &path(&digest), CONTENT).await;
    for _ in 0..2 {
        assert_eq!(add().await.0, StatusCode::CREATED);
    }
    assert!(pair.file(1, &digest).exists(), "a second copy was made");
    let age = "WITH aged AS (UPDATE sources SET used = now() - interval '8 days' RETURNING 1)
        SELECT count(*) FROM aged";
    for run in ["a", "b"] {
        assert_eq!(number(&cluster, age), Some(1));
        pair.clean().await;
        let key = json!({ "key": run }).to_string();
        let ran = two.send(Method::POST, "/farm/v1/schedules/nightly/run", key);
        let (status, ran) = ran.await;
        assert_eq!(status, StatusCode::CREATED, "{ran}");
        let build = format!("/farm/v1/builds/{}", ran["build"]);
        let (_, shown) = one.get(&build).await;
        let named = &shown["requirements"]["work"]["sources"][0]["sha256"];
        assert_eq!(*named, json!(digest.as_str()));
        one.send(Method::POST, &format!("{build}/cancel"), "").await;
        wait_for(&cluster, "SELECT count(*) FROM builds", |it| it == 0).await;
    }
    let removed = one.send(Method::DELETE, "/farm/v1/schedules/nightly", "");
    assert_eq!(removed.await.0, StatusCode::NO_CONTENT);
    assert_eq!(number(&cluster, age), Some(1));
    pair.clean().await;
    assert!(!pair.file(0, &digest).exists() && !pair.file(1, &digest).exists());
}

/// Starts the program of a coordinator with sources.
fn program(cluster: &Cluster, directory: &Path) -> RunningProgram {
    let clients = directory.join("clients");
    sys::file::replace(&clients, TOKEN.as_bytes()).unwrap();
    let mut serve = command(env!("CARGO_BIN_EXE_buildhost-farm"));
    serve.env_remove("BUILDHOST_FARM_DB");
    serve.args(["--db", &cluster.url(), "serve", "--listen", "127.0.0.1:0"]);
    serve.arg("--client-token").arg(clients);
    serve.arg("--sources").arg(directory.join("sources"));
    RunningProgram::launch(serve)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_source_arrives_after_its_coordinator_was_killed_between_upload_and_claim() {
    let cluster = block_in_place(Cluster::start);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut one, two) = block_in_place(|| {
        (
            program(&cluster, first.path()),
            program(&cluster, second.path()),
        )
    });
    let base = |it: &RunningProgram| format!("http://{}", it.address);
    let (of_one, of_two) = (base(&one), base(&two));
    let http = reqwest::Client::new();
    let content = vec![42; 3 << 20];
    let digest = sys::file::digest_of(&content);
    let uploaded = http.put(format!("{of_one}{}", path(&digest)));
    let uploaded = uploaded
        .bearer_auth(TOKEN)
        .body(content.clone())
        .send()
        .await;
    assert_eq!(uploaded.unwrap().status().as_u16(), 201);
    // The first coordinator has seen the second one when it has looked twice more.
    let beat = format!("SELECT beat FROM coordinators WHERE url = '{of_one}'");
    let looks = number(&cluster, &beat).unwrap();
    wait_for(&cluster, &beat, |it| it > looks + 1).await;
    let submit = http
        .post(format!("{of_one}/farm/v1/builds"))
        .bearer_auth(TOKEN);
    let submit = submit.header("Content-Type", "application/json");
    let submitted = submit.body(build("k", &[&digest])).send().await.unwrap();
    assert_eq!(submitted.status().as_u16(), 201);
    assert!(second.path().join("sources").join(digest.as_str()).exists());
    one.signal(Signal::SIGKILL);
    block_in_place(|| one.wait());
    std::fs::remove_dir_all(first.path().join("sources")).unwrap();

    let store = open(&cluster.url(), 1).await;
    let key = "host-key-".repeat(8);
    let token = farm::secret::hash("token-host1");
    store.invite(token, "host1", 60).await.unwrap();
    let enrolled = store.enrol(token, farm::secret::hash(&key)).await.unwrap();
    assert!(enrolled.is_some());
    let id = json!({ "incarnation": 1, "number": 1 });
    let poll = json!({ "id": id, "held": [], "hold_ms": 10_000, "offer": super::host::offer(0) });
    let poll = http
        .post(format!("{of_two}/farm/v1/poll"))
        .body(poll.to_string());
    let poll = poll
        .header("Content-Type", "application/json")
        .bearer_auth(&key);
    let answer = poll.send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let named = &answer["leases"][0]["requirements"]["work"]["sources"][0]["sha256"];
    assert_eq!(named, digest.as_str(), "{answer}");
    let fetched = fetch(&of_two, &key, &digest).await;
    assert!(fetched == (200, content), "status {}", fetched.0);
}
