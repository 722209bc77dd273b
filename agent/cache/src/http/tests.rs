//! A guest and its cache over connections on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use config::BuildId;
use config::builds::{Build, Submitter};
use config::settings::Settings;
use reqwest::{Client, Method, Response, StatusCode};
use sys::observer::Observer;
use telemetry::metrics::HostGauges;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::rules::ReadOnly;
use crate::{Cache, Caches};

/// The most that a build may put, in bytes.
const BYTES_MAX: usize = 1 << 20;

/// A host with one cache of a mebibyte.
struct Host {
    caches: Caches,
    metrics: Arc<Metrics>,
    directory: TempDir,
}

/// A guest that reaches a cache.
struct TestGuest {
    address: SocketAddr,
    client: Client,
    serving: JoinHandle<()>,
    activity: Arc<AtomicUsize>,
}

impl Drop for TestGuest {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Host {
    fn new() -> Self {
        Self::with_reserve(0)
    }

    fn with_reserve(reserve: u64) -> Self {
        let text = "[[caches]]\nname = \"one\"\nwriters = [\"alice\"]\nmib_max = 1\n";
        let rules = Settings::parse(text).unwrap().caches;
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::<Metrics>::default();
        let caches = Caches::open(directory.path(), &rules, reserve, &metrics).unwrap();
        Self {
            caches,
            metrics,
            directory,
        }
    }

    fn cache(&self) -> &Arc<Cache> {
        self.caches.iter().next().unwrap()
    }

    async fn guest(&self, access: CacheAccess) -> TestGuest {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let activity = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&activity);
        let observer = Observer::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        TestGuest {
            address: listener.local_addr().unwrap(),
            client: Client::new(),
            serving: tokio::spawn(access.serve(listener, observer)),
            activity,
        }
    }

    async fn writer(&self, build: &Build) -> TestGuest {
        self.guest(CacheAccess::of_new_guest(self.cache(), build))
            .await
    }

    /// Publishes an entry with a build of its own.
    async fn publish(&self, id: u64, path: &str, content: &str) {
        let build = build(id, "alice");
        let guest = self.writer(&build).await;
        assert_eq!(guest.put(path, content).await.0, 201);
        self.cache().settle(&build, true).unwrap();
    }

    fn count(&self, line: &str) -> String {
        let texts = self.metrics.to_texts(&HostGauges::default());
        let mut lines = texts.iter().flat_map(|text| text.lines());
        let found = lines.find_map(|it| it.strip_prefix(line));
        found.unwrap_or("none").trim().to_owned()
    }
}

impl TestGuest {
    async fn send(&self, method: Method, path: &str, body: Option<&str>) -> Response {
        let url = format!("http://{}/{path}", self.address);
        let request = self.client.request(method, url);
        let request = match body {
            Some(body) => request.body(body.to_owned()),
            None => request,
        };
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.send(Method::GET, path, None).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn put(&self, path: &str, content: &str) -> (u16, String) {
        let response = self.send(Method::PUT, path, Some(content)).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Sends bytes and returns everything until the server closes the connection.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn build(id: u64, submitter: &str) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, task) = ("default".parse().unwrap(), "0".repeat(64).parse().unwrap());
    let submitter: Submitter = submitter.parse().unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    Build::new(BuildId(id), request, toolchain, task, submitter, now)
}

#[tokio::test]
async fn a_build_reads_what_it_puts_and_others_when_it_has_succeeded() {
    let host = Host::new();
    let (first, second) = (build(1, "alice"), build(2, "bob"));
    let writer = host.writer(&first).await;
    let reader = host.writer(&second).await;
    let name = "sstate-cache/ab/sstate:m4+x~1=2:x86.tar.zst";
    let encoded = "sstate-cache/ab/sstate%3Am4%2Bx~1%3D2%3Ax86.tar.zst";
    assert_eq!(writer.put(encoded, "content").await, (201, String::new()));
    assert_eq!(writer.get(name).await, (200, "content".to_owned()));
    let missing = format!("the cache has no entry {name}\n");
    assert_eq!(reader.get(encoded).await, (404, missing));
    host.cache().settle(&first, true).unwrap();
    assert_eq!(reader.get(encoded).await, (200, "content".to_owned()));
    let head = reader.send(Method::HEAD, name, None).await;
    assert_eq!(head.headers()["content-length"], "7");
    assert_eq!(head.text().await.unwrap(), "");
    let refused = reader.put("objects/x", "y").await;
    assert_eq!(refused.0, 403);
    let reason = "builds of bob only read the cache one; an administrator names";
    assert!(refused.1.starts_with(reason), "{}", refused.1);
    // Its build has ended.
    assert_eq!(writer.put("objects/x", "y").await.0, 503);
    let requests = |result| {
        host.count(&format!(
            "buildhost_cache_requests_total{{cache=\"one\",result=\"{result}\"}}"
        ))
    };
    assert_eq!([requests("hit"), requests("miss")], ["3", "1"]);
    assert_eq!([requests("put"), requests("refused")], ["1", "2"]);
    assert_eq!(
        host.count("buildhost_cache_size_bytes{cache=\"one\"}"),
        "7.0"
    );
    assert!(reader.activity.load(Ordering::SeqCst) >= 4);
}

#[tokio::test]
async fn nothing_of_a_build_is_published_that_fails_or_may_not() {
    let host = Host::new();
    for (submitter, good) in [("alice", false), ("bob", true)] {
        let build = build(1, submitter);
        let guest = host.writer(&build).await;
        let expected = if submitter == "alice" { 201 } else { 403 };
        assert_eq!(guest.put("objects/x", "poison").await.0, expected);
        host.cache().settle(&build, good).unwrap();
        assert_eq!(guest.get("objects/x").await.0, 404);
    }
    let staging = host.directory.path().join("one/staging");
    assert_eq!(staging.read_dir().unwrap().count(), 0);
    let access = CacheAccess::read_only(host.cache(), ReadOnly::DebugSession);
    let session = host.guest(access).await;
    let refused = "a debug session only reads the cache\n".to_owned();
    assert_eq!(session.put("objects/x", "y").await, (403, refused));
}

#[tokio::test]
async fn a_part_of_an_entry_can_be_read() {
    let host = Host::new();
    host.publish(1, "downloads/x", "0123456789").await;
    let guest = host.writer(&build(2, "bob")).await;
    for (range, status, expected) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=8-", 206, "89"),
        ("bytes=-3", 206, "789"),
        ("bytes=5-100", 206, "56789"),
    ] {
        let url = format!("http://{}/downloads/x", guest.address);
        let request = guest.client.get(url).header("Range", range);
        let whole = request.try_clone().unwrap().header("If-Range", "\"old\"");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{range}");
        assert_eq!(response.text().await.unwrap(), expected, "{range}");
        let response = whole.send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "0123456789", "{range}");
    }
    let url = format!("http://{}/downloads/x", guest.address);
    let request = guest.client.get(url).header("Range", "bytes=10-");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn names_have_one_content_except_among_objects() {
    let host = Host::new();
    host.publish(1, "downloads/x", "one").await;
    host.publish(2, "objects/x", "one").await;
    let build = build(3, "alice");
    let guest = host.writer(&build).await;
    assert_eq!(guest.put("downloads/x", "one").await.0, 200);
    let refused = guest.put("downloads/x", "two").await;
    assert_eq!(refused.0, 409);
    assert!(refused.1.contains("downloads/x has another content"));
    assert_eq!(guest.get("downloads/x").await.1, "one");
    assert_eq!(guest.put("objects/x", "two").await.0, 201);
    assert_eq!(guest.get("objects/x").await.1, "two");
    // Its own entry of a name counts as well.
    assert_eq!(guest.put("sstate-cache/x", "one").await.0, 201);
    assert_eq!(guest.put("sstate-cache/x", "two").await.0, 409);
    host.cache().settle(&build, true).unwrap();
    let reader = host.writer(&self::build(4, "bob")).await;
    assert_eq!(reader.get("downloads/x").await.1, "one");
    assert_eq!(reader.get("objects/x").await.1, "two");
    assert_eq!(reader.get("sstate-cache/x").await.1, "one");
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_takes_no_space() {
    let host = Host::new();
    let guest = host.writer(&build(1, "alice")).await;
    let large = "x".repeat(BYTES_MAX + 1);
    let refused = guest.put("objects/x", &large).await;
    assert_eq!(refused.0, 413);
    assert!(refused.1.contains("at most 1048576 bytes"), "{}", refused.1);
    // Without a length that says so at once.
    let stream = futures(&large);
    let url = format!("http://{}/objects/x", guest.address);
    let response = guest.client.put(url).body(stream).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
    let half = &large[..=BYTES_MAX / 2];
    assert_eq!(guest.put("objects/a", half).await.0, 201);
    let refused = guest.put("objects/b", half).await;
    assert_eq!(refused.0, 507);
    assert!(refused.1.contains("a build puts at most"), "{}", refused.1);
    assert_eq!(guest.put("objects/c", "small").await.0, 201);
    let full = Host::with_reserve(u64::MAX);
    let guest = full.writer(&build(1, "alice")).await;
    let refused = guest.put("objects/x", "y").await;
    assert_eq!(refused.0, 507);
    assert!(refused.1.starts_with("the disk of the host is full"));
}

fn futures(text: &str) -> reqwest::Body {
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(64 * 1024)
        .map(<[u8]>::to_vec)
        .collect();
    let pieces = pieces.into_iter().map(Ok::<_, io::Error>);
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_a_sentence() {
    let host = Host::new();
    let guest = host.writer(&build(1, "alice")).await;
    for (method, path, status, sentence) in [
        (Method::GET, "", 400, "a path begins with `downloads/`"),
        (Method::GET, "index.sqlite3", 400, "a path begins with"),
        (
            Method::PUT,
            "objects/a%2F..%2Fb",
            400,
            "no part of a path is empty",
        ),
        (
            Method::PUT,
            "objects/a%00b",
            400,
            "a path has no control characters",
        ),
        (
            Method::PUT,
            "objects/a%ffb",
            400,
            "a path has no control characters",
        ),
        (Method::GET, "objects/a?b", 400, "a path has no query"),
        (
            Method::DELETE,
            "objects/a",
            405,
            "a cache knows the methods",
        ),
        (Method::POST, "objects/a", 405, "a cache knows the methods"),
    ] {
        let response = guest.send(method, path, Some("x")).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.starts_with(sentence), "{path}: {text}");
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
    }
    // No client library sends these.
    for path in [
        "/../one/index.sqlite3",
        "/downloads/../../x",
        "/downloads/%2e%2e/x",
        "//etc/passwd",
    ] {
        let answer = guest
            .raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
}

#[tokio::test]
async fn an_entry_that_does_not_arrive_whole_does_not_exist() {
    let host = Host::new();
    let build = build(1, "alice");
    let guest = host.writer(&build).await;
    let head = "PUT /objects/x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234";
    guest.raw(head).await;
    assert_eq!(guest.get("objects/x").await.0, 404);
    host.cache().settle(&build, true).unwrap();
    assert_eq!(guest.get("objects/x").await.0, 404);
    assert_eq!(host.cache().describe().unwrap().entries, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_heads_at_once_are_answered_on_few_connections() {
    let host = Host::new();
    host.publish(1, "sstate-cache/7", "x").await;
    let guest = Arc::new(host.writer(&build(2, "bob")).await);
    let heads = (0..100).map(|first| {
        let guest = Arc::clone(&guest);
        tokio::spawn(async move {
            let mut found = Vec::new();
            for number in (first..500).step_by(100) {
                let path = format!("sstate-cache/{number}");
                match guest.send(Method::HEAD, &path, None).await.status() {
                    StatusCode::OK => found.push(number),
                    status => assert_eq!(status, StatusCode::NOT_FOUND),
                }
            }
            found
        })
    });
    let heads: Vec<_> = heads.collect();
    let mut found = Vec::new();
    for head in heads {
        found.extend(head.await.unwrap());
    }
    assert_eq!(found, [7]);
}
