//! What becomes of builds that have ended: deleted by hand, or by the limits of the
//! settings.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use agent::housekeeping::retention;
use config::BuildId;
use config::builds::{Build, State, Submitter};
use config::task::Outcome;
use jiff::Timestamp;
use tests::api_host::{ApiHost, request};
use tests::write_file;

const SOURCE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// A build with a source and a directory.
fn submitted(host: &ApiHost, source: &str) -> Build {
    let text =
        format!(r#"{{"machine": "linux", "sources": [{{"name": "x", "sha256": "{source}"}}]}}"#);
    let request = serde_json::from_str(&text).unwrap();
    let toolchain = "default".parse().unwrap();
    let now = Timestamp::now();
    let records = &host.host.records;
    let build = host.block_on(records.submit(request, toolchain, Submitter::root(), now));
    let build = build.unwrap();
    let directory = directory(host, build.id);
    fs::create_dir_all(directory.join("artifacts")).unwrap();
    write_file(&directory.join("artifacts/x.ipk"), "package");
    write_file(&directory.join("log"), "words");
    build
}

fn ended(host: &ApiHost, source: &str) -> BuildId {
    let mut build = submitted(host, source);
    build.enter(State::Finished, Timestamp::now()).unwrap();
    build.outcome = Some(Outcome::Success);
    host.block_on(host.host.records.save(&build)).unwrap();
    build.id
}

fn directory(host: &ApiHost, id: BuildId) -> PathBuf {
    host.host.paths.build(id)
}

/// Puts a source in its place that was handed in two days ago.
fn old_source(host: &ApiHost, digest: &str) -> PathBuf {
    let path = host.path("state/sources").join(digest);
    write_file(&path, "source");
    let then = SystemTime::now() - Duration::from_hours(48);
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(then)
        .unwrap();
    path
}

fn there(host: &ApiHost) -> Vec<u64> {
    let builds = host.block_on(host.host.records.newest(None, 100)).unwrap();
    builds.iter().map(|build| build.id.0).collect()
}

#[test]
fn a_build_is_deleted_wholly_but_not_before_its_end() {
    let host = ApiHost::new("");
    let (first, waits) = (ended(&host, SOURCE), submitted(&host, SOURCE).id);
    let delete = |id: &dyn std::fmt::Display| {
        let url = format!("http://agent/api/v1/builds/{id}");
        let answer = request(&host.local(), "DELETE", &url).send().unwrap();
        answer.status().as_u16()
    };
    for (id, status) in [
        (&waits as &dyn std::fmt::Display, 409),
        (&77, 404),
        (&"x", 400),
        (&-1, 400),
        (&first, 204),
        (&first, 404),
    ] {
        assert_eq!(delete(id), status, "{id}");
    }
    assert!(!directory(&host, first).exists());
    assert!(directory(&host, waits).join("log").exists());
    assert_eq!(there(&host), [waits.0]);
}

#[test]
fn what_a_killed_agent_left_goes_and_what_is_not_ours_stays() {
    let host = ApiHost::new("");
    let (gone, kept) = (ended(&host, SOURCE), ended(&host, SOURCE));
    // As if the agent had died between the two steps.
    host.block_on(host.host.records.delete(gone)).unwrap();
    let unknown = directory(&host, BuildId(3));
    host.block_on(host.host.records.number_above(BuildId(3)))
        .unwrap();
    let notes = host.path("state/builds/notes");
    for stranger in [&unknown, &notes] {
        fs::create_dir_all(stranger).unwrap();
    }
    let (named, unnamed) = (
        old_source(&host, SOURCE),
        old_source(&host, &"b".repeat(64)),
    );
    host.block_on(retention::round(&host.host));
    assert!(!directory(&host, gone).exists());
    assert!(directory(&host, kept).exists() && unknown.exists() && notes.exists());
    assert!(named.exists() && !unnamed.exists());
}

#[test]
fn limits_take_the_oldest_that_have_ended_with_their_sources() {
    let host = ApiHost::new("records.builds_max = 1\n");
    let other = "c".repeat(64);
    let old = [ended(&host, &other), ended(&host, SOURCE)];
    let waits = submitted(&host, SOURCE);
    let newest = ended(&host, SOURCE);
    let (named, unnamed) = (old_source(&host, SOURCE), old_source(&host, &other));
    host.block_on(retention::round(&host.host));
    assert_eq!(there(&host), [newest.0, waits.id.0]);
    assert!(old.iter().all(|id| !directory(&host, *id).exists()));
    assert!(directory(&host, waits.id).exists());
    assert!(named.exists() && !unnamed.exists());
}
