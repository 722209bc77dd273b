//! Caches between builds: their routes of the API, and a compiler cache that uses one.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cache::CacheAccess;
use config::BuildId;
use config::builds::Build;
use reqwest::blocking::Client;
use serde_json::{Value, json};
use sys::command;
use sys::observer::Observer;
use tests::api_host::ApiHost;
use tokio::net::TcpListener;

use super::openapi::check;

const CACHES: &str = "/api/v1/caches";
const CACHE: &str = "/api/v1/caches/{name}";
const PRUNE: &str = "/api/v1/caches/{name}/prune";
const SETTINGS: &str = "http.requests_per_second_max = 0\n\
                        [[caches]]\nname = \"one\"\nmachines = [\"linux\"]\nwriters = [\"root\"]\nmib_max = 64\n\
                        [[caches]]\nname = \"two\"\n";

/// Returns a host with two caches and the token `admin`.
fn host() -> ApiHost {
    let host = ApiHost::new(SETTINGS);
    host.allow(&[("admin", "admin")]);
    host
}

fn build(id: u64) -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let task = "0".repeat(64).parse().unwrap();
    Build::new(
        BuildId(id),
        request,
        toolchain,
        task,
        root,
        jiff::Timestamp::now(),
    )
}

/// Serves a build's guest, and returns the address of its cache.
fn serve(host: &ApiHost, build: &Build) -> SocketAddr {
    let cache = host.host.caches.of(&build.machine, &build.toolchain);
    let access = CacheAccess::of_new_guest(cache.unwrap(), build);
    host.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(access.serve(listener, Observer::default()));
        address
    })
}

/// Ends a build.
fn settle(host: &ApiHost, build: &Build) {
    let cache = host.host.caches.of(&build.machine, &build.toolchain);
    cache.unwrap().settle(build, true).unwrap();
}

/// Publishes entries of a build.
fn publish(host: &ApiHost, id: u64, entries: &[(&str, &str)]) {
    let build = build(id);
    let address = serve(host, &build);
    for (path, content) in entries {
        let put = Client::new().put(format!("http://{address}/{path}"));
        let put = put.body((*content).to_owned()).send().unwrap();
        assert_eq!(put.status(), 201);
    }
    settle(host, &build);
}

fn ask(host: &ApiHost, method: &str, route: &str, path: &str, body: &Value) -> (u16, Value) {
    let asked = host.remote(method, path).bearer_auth("admin");
    let asked = if body.is_null() {
        asked
    } else {
        asked.json(body)
    };
    let response = asked.send().unwrap();
    let status = response.status().as_u16();
    (status, check(method, route, response))
}

fn get(host: &ApiHost, route: &str, path: &str) -> Value {
    let (status, answer) = ask(host, "GET", route, path, &Value::Null);
    assert_eq!(status, 200, "{answer}");
    answer
}

#[test]
fn caches_are_shown_pruned_and_emptied_by_an_administrator() {
    let host = host();
    publish(&host, 1, &[("downloads/a", "one"), ("objects/b", "two")]);
    publish(&host, 2, &[("objects/c d", "three")]);
    let caches = get(&host, CACHES, CACHES);
    assert_eq!(caches[0]["name"], "one");
    assert_eq!(
        (&caches[0]["entries"], &caches[0]["bytes"]),
        (&json!(3), &json!(11))
    );
    assert_eq!(
        (&caches[1]["entries"], &caches[1]["writers"]),
        (&json!(0), &json!([]))
    );

    let one = format!("{CACHES}/one");
    let shown = get(&host, CACHE, &format!("{one}?prefix=objects/&limit=1"));
    let entry = &shown["entries"][0];
    assert_eq!(
        (&entry["path"], &entry["build"]),
        (&json!("objects/b"), &json!(1))
    );
    assert_eq!(shown["next"], "objects/b");
    let shown = get(&host, CACHE, &format!("{one}?after=objects/b"));
    assert_eq!(shown["entries"][0]["path"], "objects/c d");
    assert_eq!(shown.get("next"), None);

    let prune = |body: &Value| ask(&host, "POST", PRUNE, &format!("{one}/prune"), body).1;
    let most = json!({"entries": 2, "bytes": 6});
    assert_eq!(prune(&json!({"bytes_max": 5, "dry_run": true})), most);
    assert_eq!(prune(&json!({})), json!({"entries": 0, "bytes": 0}));
    let delete = |query: &str| {
        ask(
            &host,
            "DELETE",
            CACHE,
            &format!("{one}?{query}"),
            &Value::Null,
        )
        .1
    };
    let first = json!({"entries": 1, "bytes": 3});
    assert_eq!(delete("build=1&prefix=objects/&dry_run=true"), first);
    assert_eq!(delete("build=1&prefix=objects/"), first);
    assert_eq!(prune(&json!({"bytes_max": 5})), first);
    assert_eq!(delete(""), json!({"entries": 1, "bytes": 5}));
    assert_eq!(get(&host, CACHES, CACHES)[0]["bytes"], 0);
    let metrics = host.get("/metrics").text().unwrap();
    for line in [
        "buildhost_cache_published_total{cache=\"one\"} 3",
        "buildhost_cache_deleted_total{cache=\"one\"} 3",
        "buildhost_cache_entries{cache=\"two\"} 0.0",
    ] {
        assert!(metrics.contains(line), "no `{line}` in {metrics}");
    }
}

#[test]
#[ignore = "needs ccache and gcc"]
fn ccache_finds_in_the_next_build_what_the_last_one_compiled() {
    let program = Path::new("/usr/bin/ccache");
    assert!(
        program.exists(),
        "ccache is missing; run scripts/setup test"
    );
    let host = host();
    for (id, expected) in [(1, "0"), (2, "1")] {
        let build = build(id);
        let address = serve(&host, &build);
        let work = tempfile::tempdir().unwrap();
        sys::file::replace(
            &work.path().join("hello.c"),
            b"int main(void) { return 0; }\n",
        )
        .unwrap();
        let run = |arguments: &[&str]| {
            let mut ccache = command::prepare(program);
            let storage = format!("http://{address}/objects/ccache|layout=subdirs");
            ccache.env("CCACHE_REMOTE_STORAGE", storage);
            ccache.env("CCACHE_DIR", work.path().join("ccache"));
            ccache.env("CCACHE_BASEDIR", work.path());
            ccache.current_dir(work.path()).args(arguments);
            let output = command::run(ccache, Duration::from_mins(1)).unwrap();
            String::from_utf8_lossy(&output).into_owned()
        };
        run(&["gcc", "-c", "hello.c", "-o", "hello.o"]);
        assert!(fs::metadata(work.path().join("hello.o")).unwrap().len() > 0);
        let statistics = run(&["--print-stats"]);
        let hits = statistics
            .lines()
            .find_map(|it| it.strip_prefix("remote_storage_hit\t"));
        assert_eq!(hits, Some(expected), "{statistics}");
        settle(&host, &build);
    }
}
