//! Caches between builds in real guests: who fills them, who reads them, and agents that are killed.

use std::fs;

use config::builds::{Build, StartKind, State};
use config::cache::CacheMode;
use config::task::Outcome;
use rustix::process::Signal;
use serde_json::Value;
use tests::agent::AgentHost;
use tests::wait_until;

use crate::checkpoints::wait_until_ready;

/// A toolchain that runs the source, a shell script, with functions for the cache.
const RUNNER: &str = r#"#!/bin/sh
set -u
# Puts an entry with a content, and prints the status.
put() {
    {
        printf 'PUT /%s HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n' "$1"
        printf 'Content-Length: %d\r\n\r\n%s' "${#2}" "$2"
    } | nc 169.254.111.222 8080 | sed -n 's|^HTTP/1.1 \(...\).*|put \1|p'
}
# Prints an entry.
get() { wget -q -O - "$BUILDHOST_CACHE/$1" || echo "no $1"; echo; }
# Waits until the test opens the gate of the container.
gate() {
    echo waiting at the gate
    while [ ! -e /gate ]; do sleep 1; done
}
. "$BUILDHOST_SOURCES/script"
"#;
/// The settings of a cache that builds of root fill.
const CACHE: &str =
    "[[caches]]\nname = \"one\"\ntoolchains = [\"default\"]\nwriters = [\"root\"]\n";

fn host(settings: &str) -> AgentHost {
    let host = AgentHost::new(&format!("{settings}\n{CACHE}[[caches]]\nname = \"rest\"\n"));
    host.add_build_program("default", RUNNER);
    host.add_build_program("other", RUNNER);
    host
}

/// Returns a host whose machine is a container.
fn container_host() -> AgentHost {
    let mut host = host("");
    host.add_container("demo", |_| {});
    host.start();
    host
}

fn submit(host: &AgentHost, toolchain: &str, script: &str) -> u64 {
    host.submit_script(script, &["--toolchain", toolchain])
}

/// Waits for the end of a build, and returns its record and its log.
fn end(host: &AgentHost, id: u64) -> (Build, String) {
    let build = host.wait_for(id, State::Finished);
    (build, host.log_of(id))
}

/// Runs a script as a build that succeeds, and returns its log.
fn run(host: &AgentHost, script: &str) -> String {
    let (build, log) = end(host, submit(host, "default", script));
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}\n{log}");
    log
}

fn assert_lines(log: &str, expected: &[&str]) {
    let mut lines = log.lines();
    for line in expected {
        assert!(lines.any(|it| it == *line), "no `{line}` in {log}");
    }
}

/// Returns the paths of all entries of the cache.
fn entries(host: &AgentHost) -> Vec<String> {
    let shown = host
        .machinectl(&["cache", "show", "one", "--json"])
        .success();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let entries = shown["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| entry["path"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn only_successful_builds_of_writers_fill_the_cache_of_their_toolchain() {
    let host = container_host();
    let log = run(
        &host,
        "echo mode $BUILDHOST_CACHE_MODE\nget downloads/a:b\nput downloads/a%3Ab one\nget downloads/a:b\n",
    );
    assert_lines(&log, &["mode write", "no downloads/a:b", "put 201", "one"]);
    let log = run(
        &host,
        "get downloads/a%3ab\nput downloads/a:b one\nput downloads/a:b two\nget downloads/a:b",
    );
    assert_lines(&log, &["one", "put 200", "put 409", "one"]);

    let failing = submit(&host, "default", "put objects/poison x\nexit 3\n");
    let (build, log) = end(&host, failing);
    assert_eq!(build.outcome, Some(Outcome::Error), "{build:?}");
    assert_lines(&log, &["put 201"]);
    assert_lines(&run(&host, "get objects/poison"), &["no objects/poison"]);

    // The cache of another toolchain has no writers, and no entries.
    let reading = "echo mode $BUILDHOST_CACHE_MODE\nput objects/x y\nget downloads/a:b\n";
    let (build, log) = end(&host, submit(&host, "other", reading));
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_lines(&log, &["mode read", "put 403", "no downloads/a:b"]);
    let policy = build.inputs.unwrap().policy.unwrap();
    assert_eq!(policy.cache.unwrap().name.as_str(), "rest");

    assert_eq!(entries(&host), ["downloads/a:b"]);
    let table = host.machinectl(&["cache", "list"]).success().stdout;
    assert!(table.contains("one") && table.contains("rest"), "{table}");
    let delete = ["cache", "delete", "one", "--build", "1"];
    let planned = host.machinectl(&[&delete[..], &["--dry-run"]].concat());
    let expected = "would delete 1 entry of cache one, 1 KiB\n";
    assert_eq!(planned.success().stdout, expected);
    host.machinectl(&delete).success();
    assert_eq!(entries(&host), [""; 0]);
    let staging = host.state_directory().join("caches/one/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn guests_of_one_checkpoint_share_a_cache_that_the_checkpoint_does_not_know() {
    let mut host = host("guests.ready_max = 1");
    host.add("demo", |_| {});
    host.start();
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    for number in 1..=3 {
        let last = number - 1;
        let script = format!(
            "echo mode $BUILDHOST_CACHE_MODE\nget objects/{last}\nput objects/{number} content{number}\n"
        );
        let id = submit(&host, "default", &script);
        let (build, log) = end(&host, id);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}\n{log}");
        assert!(build.restored, "{build:?}");
        let found = if number == 1 {
            "no objects/0".to_owned()
        } else {
            format!("content{last}")
        };
        assert_lines(&log, &["mode write", &found, "put 201"]);
    }
    // A copy of a forked build has the mode of its source, and only reads.
    let script = "while [ \"$(cat \"$BUILDHOST_FORK\")\" = '0 of 0' ]; do echo waiting; sleep 1; done\n\
                  get objects/1\nput \"objects/copy-$(cut -c 1 \"$BUILDHOST_FORK\")\" x\n";
    let id = submit(&host, "default", script);
    let log = host.state_directory().join(format!("builds/{id}/log.live"));
    wait_until("the build waits to be forked", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("waiting"))
    });
    host.machinectl(&["fork", &id.to_string(), "--copies", "1"])
        .success();
    let (copy, log) = end(&host, id + 1);
    assert_eq!(copy.outcome, Some(Outcome::Success), "{copy:?}\n{log}");
    assert_lines(&log, &["content1", "put 403"]);
    let policy = copy.inputs.unwrap().policy.unwrap();
    assert_eq!(policy.cache.unwrap().mode, CacheMode::Read);
    let (source, log) = end(&host, id);
    assert_eq!(source.outcome, Some(Outcome::Success), "{source:?}\n{log}");
    assert_lines(&log, &["content1", "put 201"]);
    let paths = ["objects/1", "objects/2", "objects/3", "objects/copy-0"];
    assert_eq!(entries(&host), paths);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_that_is_killed_loses_nothing_of_a_build_and_publishes_all_of_it() {
    let mut host = container_host();
    let contents = host.state_directory().join("caches/one/contents");
    let count = || {
        let directories = fs::read_dir(&contents).unwrap().flatten();
        let files = directories.filter_map(|it| Some(fs::read_dir(it.path()).ok()?.count()));
        files.sum::<usize>()
    };
    let mut published = 0;
    for (round, killed_at) in [1, 60, 119].into_iter().enumerate() {
        let script = format!(
            "put objects/{round}/first x{round}\ngate\nfor n in $(seq 119); do put objects/{round}/$n y{round}-$n; done\n"
        );
        let id = submit(&host, "default", &script);
        host.wait_for_gate(id);
        // While the guest runs: it is adopted with what it has put.
        host.stop(Signal::KILL);
        host.start();
        host.open_gate("demo", id);
        // While its entries are published.
        wait_until("the publication has begun", || {
            count() >= published + killed_at
        });
        host.stop(Signal::KILL);
        host.start();
        let (build, log) = end(&host, id);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}\n{log}");
        published += 120;
        assert_eq!(entries(&host).len(), published);
        assert_eq!(count(), published);
        let script = format!("get objects/{round}/first\nget objects/{round}/119\n");
        let expected = [format!("x{round}"), format!("y{round}-119")];
        assert_lines(&run(&host, &script), &[&expected[0], &expected[1]]);
    }
    let staging = host.state_directory().join("caches/one/staging");
    assert_eq!(fs::read_dir(staging).unwrap().count(), 0);
}
