//! Downloads of logs and sources.

use std::fs;
use std::io::Read;
use std::path::Path;

use config::BuildId;
use config::builds::{Build, State};
use jiff::Timestamp;
use tests::api_host::ApiHost;
use tests::write_file;

/// Changes the record of a build.
fn change(host: &ApiHost, id: BuildId, change: impl Fn(&mut Build) + Send + 'static) {
    let change = move |build: &mut Build| {
        change(build);
        true
    };
    let changed = host.block_on(host.host.records.change(id, change));
    assert!(changed.unwrap().unwrap().1);
}

/// Lets a build run its next attempt, with this log.
fn run_attempt(host: &ApiHost, id: BuildId, directory: &Path, log: &str) {
    change(host, id, |build| {
        build.attempts += 1;
        for state in [State::Starting, State::Running] {
            build.enter(state, Timestamp::now()).unwrap();
        }
    });
    write_file(&directory.join("log"), log);
}

#[test]
fn a_reader_that_follows_one_attempt_does_not_get_the_log_of_the_next() {
    let host = ApiHost::new("");
    host.allow(&[("read", "r")]);
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let submit = host
        .host
        .records
        .submit(request, toolchain, root, Timestamp::now());
    let id = host.block_on(submit).unwrap().id;
    let directory = host.path(&format!("state/builds/{id}"));
    fs::create_dir_all(&directory).unwrap();
    run_attempt(&host, id, &directory, "first\n");
    let path = format!("/api/v1/builds/{id}/log?follow=true&attempt=1");
    let follow = host.remote("GET", &path).bearer_auth("r");
    let mut answer = follow.send().unwrap();
    assert_eq!(answer.status(), 200);
    let mut first = [0; 6];
    answer.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    // The attempt fails and is repeated before the reader looks again.
    fs::create_dir(directory.join("attempt-1")).unwrap();
    fs::rename(directory.join("log"), directory.join("attempt-1/log")).unwrap();
    change(&host, id, |build| {
        build.enter(State::Queued, Timestamp::now()).unwrap();
    });
    run_attempt(&host, id, &directory, "the second one\n");
    change(&host, id, |build| {
        build.enter(State::Finished, Timestamp::now()).unwrap();
    });
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}

#[test]
fn a_source_is_sent_with_its_size() {
    let host = ApiHost::new("");
    let source = crate::openapi::SOURCE;
    write_file(&host.path(&format!("state/sources/{source}")), "source");
    host.allow(&[("read", "r")]);
    let get = host.remote("GET", &format!("/api/v1/sources/{source}"));
    let answer = get.bearer_auth("r").send().unwrap();
    assert_eq!(answer.headers()["content-length"], "6");
    assert_eq!(answer.text().unwrap(), "source");
}
