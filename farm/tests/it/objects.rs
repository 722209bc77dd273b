//! The files of builds in an object store: a real server with the protocol S3, and what can go wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use farm_core::transfers::STATUS;
use farm_store::{ArchiveState, Store};
use futures_util::stream::iter;
use serde_json::{Value, json};
use server_tests::Cluster;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use super::farm::{open, submit};
use super::object_store::ObjectStore;
use super::server::Server;

/// The pause between two polls, and between two looks.
const PAUSE: Duration = Duration::from_millis(30);
/// The looks until something must have happened: a minute.
const LOOKS_MAX: u32 = 2_000;
const LOG: &str = "hello, world\nbuilt\n";

/// The files of a host.
#[derive(Debug, Default)]
struct Files {
    artifacts: Vec<(&'static str, Vec<u8>)>,
    /// True if the host does not have the build any more.
    are_gone: AtomicBool,
    /// Logs that are cut in the midst, until there were so many.
    cutting: AtomicUsize,
    /// The files that were sent.
    sent: Mutex<Vec<String>>,
}

impl Files {
    /// Returns the answer to an order: its status, its content, and the length that it announces.
    fn answer(&self, wanted: &Value) -> (u16, Vec<u8>, usize) {
        let kind = wanted["kind"].as_str().unwrap();
        self.sent.lock().unwrap().push(kind.to_owned());
        if self.are_gone.load(Ordering::SeqCst) {
            return (404, b"{}".to_vec(), 2);
        }
        let content = match kind {
            "log" => {
                let offset = wanted["offset"].as_u64().unwrap();
                LOG.bytes().skip(usize::try_from(offset).unwrap()).collect()
            }
            "artifacts" => self.list().to_string().into_bytes(),
            _ => {
                let name = wanted["name"].as_str().unwrap();
                let found = self.artifacts.iter().find(|(it, _)| *it == name);
                found.unwrap().1.clone()
            }
        };
        let length = content.len();
        let cut = self
            .cutting
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1));
        if kind == "log" && cut.is_ok() {
            return (200, content[..5].to_vec(), length);
        }
        (200, content, length)
    }

    fn list(&self) -> Value {
        let entry = |(name, content): &(&str, Vec<u8>)| {
            let hash: [u8; 32] = Sha256::digest(content).into();
            let sha256 = config::task::Digest::from(hash).to_string();
            json!({ "name": name, "bytes": content.len(), "sha256": sha256 })
        };
        self.artifacts.iter().map(entry).collect()
    }
}

/// A host that runs one build at once and sends its files, until it is dropped.
struct Host {
    files: Arc<Files>,
    serving: JoinHandle<()>,
}

impl Host {
    /// Runs a build and reports its result. Returns its number.
    async fn run(client: &Server, store: &Store, files: Files) -> (Self, u64) {
        let key = client.keys(store, &["host1"]).await.remove(0);
        let build = submit(client.coordinator(), "k").await.0;
        let answer = client.poll(&key, 1, json!([])).await;
        let lease = answer["leases"][0]["lease"].clone();
        let report = json!({ "lease": lease, "outcome": "success" });
        let request = client.http.post(format!("{}/farm/v1/report", client.base));
        let request = request.header("Content-Type", "application/json");
        let request = request.bearer_auth(&key).body(report.to_string());
        assert_eq!(request.send().await.unwrap().status().as_u16(), 204);
        let files = Arc::new(files);
        let serving = tokio::spawn(serve(client.clone(), key, Arc::clone(&files)));
        (Self { files, serving }, build)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(client: Server, key: String, files: Arc<Files>) {
    let mut known: Vec<Value> = Vec::new();
    for number in 2.. {
        let answer = client.poll(&key, number, json!([])).await;
        for order in answer["transfers"].as_array().into_iter().flatten() {
            if known.contains(&order["id"]) {
                continue;
            }
            known.push(order["id"].clone());
            let (status, content, length) = files.answer(&order["wanted"]);
            let part = |name: &str| order[name].as_str().unwrap().to_owned();
            let url = format!("{}/farm/v1/transfers/{}", part("coordinator"), part("id"));
            if content.len() < length {
                send_cut(&client, &url, &key, &content, length).await;
                continue;
            }
            let request = client
                .http
                .post(url)
                .bearer_auth(&key)
                .header(STATUS, status);
            let request = request.header("Content-Type", "text/plain");
            let _ = request.body(content).send().await;
        }
        sleep(PAUSE).await;
    }
}

/// Sends content whose connection ends before the length that was announced.
async fn send_cut(client: &Server, url: &str, key: &str, content: &[u8], length: usize) {
    let address = client.base.strip_prefix("http://").unwrap();
    let path = url.strip_prefix(&client.base).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\n\
         {STATUS}: 200\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(content).await.unwrap();
    connection.shutdown().await.unwrap();
    // The coordinator has read it when it answers or ends the connection.
    let _ = connection.read_to_end(&mut Vec::new()).await;
}

/// Waits until the files of a build are in a state.
async fn wait_for(
    store: &Store,
    build: u64,
    holds: impl Fn(&ArchiveState) -> bool,
) -> ArchiveState {
    for _ in 0..LOOKS_MAX {
        let state = store.archive_of(config::BuildId(build)).await.unwrap();
        if holds(&state) {
            return state;
        }
        sleep(PAUSE).await;
    }
    panic!("the files of build {build} do not come");
}

fn is_stored(state: &ArchiveState) -> bool {
    matches!(state, ArchiveState::Stored(_))
}

/// Waits until an attempt of a coordinator has failed.
async fn wait_for_failure(server: &Server) {
    for _ in 0..LOOKS_MAX {
        let text = server.text("/metrics").await.1;
        if !text.contains("buildhost_farm_upload_failures_total 0") {
            return;
        }
        sleep(PAUSE).await;
    }
    panic!("no upload fails");
}

/// Waits until the metrics of a coordinator have a line.
async fn wait_for_metric(server: &Server, line: &str) {
    let mut text = String::new();
    for _ in 0..LOOKS_MAX {
        text = server.text("/metrics").await.1;
        if text.contains(line) {
            return;
        }
        sleep(PAUSE).await;
    }
    panic!("no {line} in {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn files_are_read_from_the_store_when_their_host_is_gone() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let bucket = ObjectStore::start().await;
    let one = Server::archiving(&store, bucket.objects()).await;
    let other = Server::archiving(&store, bucket.objects()).await;
    // One artifact is put in parts.
    let large = vec![7; 9 << 20];
    let artifacts = vec![
        ("a.tar", b"content".to_vec()),
        ("large é.bin", large.clone()),
    ];
    let files = Files {
        artifacts,
        ..Files::default()
    };
    let (host, build) = Host::run(&one, &store, files).await;
    wait_for(&store, build, is_stored).await;
    let sent = host.files.sent.lock().unwrap().clone();
    // An earlier attempt may have failed on a busy computer.
    let last = ["log", "artifacts", "artifact", "artifact"].map(str::to_owned);
    assert!(sent.ends_with(&last), "{sent:?}");
    let artifacts = host.files.list();
    drop(host);

    let path = |rest: &str| format!("/farm/v1/builds/{build}/{rest}");
    for server in [&one, &other] {
        assert_eq!(
            server.text(&path("log")).await,
            (StatusCode::OK, LOG.to_owned())
        );
        let part = server.text(&path("log?offset=7&follow=true")).await;
        assert_eq!(part, (StatusCode::OK, LOG[7..].to_owned()));
        assert_eq!(
            server.get(&path("artifacts")).await,
            (StatusCode::OK, artifacts.clone())
        );
    }
    assert_eq!(other.text(&path("artifacts/a.tar")).await.1, "content");
    let (_, found) = other.text(&path("artifacts/large%20%C3%A9.bin")).await;
    assert!(found.as_bytes() == large, "{}", found.len());
    let (status, answer) = other.get(&path("artifacts/b.tar")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        answer["error"],
        json!(format!("build {build} has no artifact b.tar"))
    );
    let (_, view) = other.get(&format!("/farm/v1/builds/{build}")).await;
    assert_eq!(view["files"], json!("stored"));
    wait_for_metric(&other, "buildhost_farm_uploads_waiting 0").await;

    // What a store has lost or changed is never read as the whole.
    bucket.faults.cutting.store(1, Ordering::SeqCst);
    let continued = one.try_text(&path("artifacts/a.tar")).await;
    assert_eq!(continued.unwrap(), "content");
    bucket.faults.cutting.store(100, Ordering::SeqCst);
    assert!(one.try_text(&path("artifacts/a.tar")).await.is_err());
    bucket.faults.cutting.store(0, Ordering::SeqCst);
    bucket.faults.slow.store(true, Ordering::SeqCst);
    assert_eq!(one.try_text(&path("log")).await.unwrap(), LOG);
    let log = bucket
        .files("one")
        .into_iter()
        .find(|it| it.ends_with("/log"))
        .unwrap();
    let changed = LOG.replace("hello", "hullo");
    sys::file::replace(&bucket.path(&log), changed.as_bytes()).unwrap();
    assert!(one.try_text(&path("log")).await.is_err());
    // Then only the host can help.
    sys::file::replace(&bucket.path(&log), b"short").unwrap();
    let (status, answer) = one.get(&path("log")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_store_that_is_away_delays_neither_results_nor_reads() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let mut bucket = ObjectStore::start().await;
    let server = Server::archiving(&store, bucket.objects()).await;
    bucket.go_away().await;
    let (host, build) = Host::run(&server, &store, Files::default()).await;
    wait_for_failure(&server).await;
    let (_, text) = server.text("/metrics").await;
    assert!(text.contains("buildhost_farm_uploads_waiting 1"), "{text}");
    let path = format!("/farm/v1/builds/{build}");
    assert_eq!(server.get(&path).await.1["files"], json!("waiting"));
    assert_eq!(server.text(&format!("{path}/log")).await.1, LOG);
    // It comes back, and fails for a while.
    bucket.faults.failing.store(4, Ordering::SeqCst);
    bucket.come_back().await;
    wait_for(&store, build, is_stored).await;
    drop(host);
    assert_eq!(server.text(&format!("{path}/log")).await.1, LOG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_coordinator_with_wrong_credentials_stores_nothing_and_another_one_does() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let bucket = ObjectStore::start().await;
    let wrong = Server::archiving(&store, bucket.open("another secret")).await;
    let (_host, build) = Host::run(&wrong, &store, Files::default()).await;
    wait_for_failure(&wrong).await;
    assert!(bucket.files("").is_empty());
    wrong.stop_archiving();
    let right = Server::archiving(&store, bucket.objects()).await;
    wait_for(&store, build, is_stored).await;
    let log = format!("/farm/v1/builds/{build}/log");
    assert_eq!(right.text(&log).await.1, LOG);
    // The wrong one cannot read it either, and asks the host.
    assert_eq!(wrong.text(&log).await.1, LOG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_log_that_is_cut_is_sent_again() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let bucket = ObjectStore::start().await;
    let server = Server::archiving(&store, bucket.objects()).await;
    let files = Files {
        cutting: AtomicUsize::new(2),
        ..Files::default()
    };
    let (host, build) = Host::run(&server, &store, files).await;
    let stored = wait_for(&store, build, is_stored).await;
    let ArchiveState::Stored(archive) = stored else {
        unreachable!("{stored:?}");
    };
    let attempt = archive.folder.rsplit('-').next().unwrap();
    assert!(attempt.parse::<u64>().unwrap() >= 3, "{archive:?}");
    drop(host);
    let log = format!("/farm/v1/builds/{build}/log");
    assert_eq!(server.text(&log).await, (StatusCode::OK, LOG.to_owned()));
    let files = bucket.files(&format!("one/{}", archive.folder));
    assert_eq!(files.len(), 2, "{files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn files_that_a_host_does_not_have_any_more_are_lost() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let bucket = ObjectStore::start().await;
    let server = Server::archiving(&store, bucket.objects()).await;
    let files = Files {
        are_gone: AtomicBool::new(true),
        ..Files::default()
    };
    let (_host, build) = Host::run(&server, &store, files).await;
    wait_for(&store, build, |it| *it == ArchiveState::Lost).await;
    let (status, answer) = server.get(&format!("/farm/v1/builds/{build}/log")).await;
    assert_eq!(status, StatusCode::GONE);
    let error = answer["error"].as_str().unwrap();
    assert!(error.ends_with("are nowhere any more"), "{error}");
    let (_, view) = server.get(&format!("/farm/v1/builds/{build}")).await;
    assert_eq!(view["files"], json!("lost"));
    wait_for_metric(&server, "buildhost_farm_builds_files_lost_total 1").await;
    assert_eq!(bucket.faults.count(&Method::PUT), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn objects_of_old_months_are_deleted() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let bucket = ObjectStore::start().await;
    let objects = bucket.objects();
    for name in [
        "builds/2020-02/1-1-1/log",
        "builds/2020-02/1-1-1/artifacts/a.tar",
        "builds/2999-01/2-1-1/log",
        "builds/by-hand/log",
        "sources/a",
    ] {
        objects
            .put(name, iter([Ok(Bytes::from_static(b"x"))]))
            .await
            .unwrap();
    }
    let server = Server::archiving(&store, objects).await;
    server.coordinator().maintain().await;
    let left = bucket.files("");
    let expected = [
        "one/builds/2999-01/2-1-1/log",
        "one/builds/by-hand/log",
        "one/sources/a",
    ];
    assert_eq!(left, expected);
}
