//! The deletion of finished builds, by requests or by the limits of the settings.

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

/// Records a queued build with a source and a directory.
fn queued_build(host: &ApiHost, source: &str) -> Build {
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
    write_file(&directory.join("log"), "a log");
    build
}

fn finished_build(host: &ApiHost, source: &str) -> BuildId {
    let mut build = queued_build(host, source);
    build.enter(State::Finished, Timestamp::now()).unwrap();
    build.outcome = Some(Outcome::Success);
    host.block_on(host.host.records.save(&mut build)).unwrap();
    build.id
}

fn directory(host: &ApiHost, id: BuildId) -> PathBuf {
    host.host.paths.build(id)
}

/// Creates a source that was uploaded two days ago.
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

/// Returns the numbers of all recorded builds.
fn recorded_builds(host: &ApiHost) -> Vec<u64> {
    let builds = host.block_on(host.host.records.newest(None, 100)).unwrap();
    builds.iter().map(|build| build.id.0).collect()
}

#[test]
fn finished_builds_are_deleted_with_their_files_and_queued_ones_are_not() {
    let host = ApiHost::new("");
    let (first, waits) = (
        finished_build(&host, SOURCE),
        queued_build(&host, SOURCE).id,
    );
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
    assert_eq!(recorded_builds(&host), [waits.0]);
}

#[test]
fn the_leftovers_of_a_killed_agent_are_deleted_and_unmanaged_files_stay() {
    let host = ApiHost::new("");
    let (deleted, recorded) = (finished_build(&host, SOURCE), finished_build(&host, SOURCE));
    // The state after an agent that was killed before it deleted the files.
    host.block_on(host.host.records.delete(deleted)).unwrap();
    let unknown = directory(&host, BuildId(3));
    host.block_on(host.host.records.reserve_ids(BuildId(3)))
        .unwrap();
    let notes = host.path("state/builds/notes");
    for unmanaged in [&unknown, &notes] {
        fs::create_dir_all(unmanaged).unwrap();
    }
    let (named, unnamed) = (
        old_source(&host, SOURCE),
        old_source(&host, &"b".repeat(64)),
    );
    host.block_on(retention::round(&host.host));
    assert!(!directory(&host, deleted).exists());
    assert!(directory(&host, recorded).exists() && unknown.exists() && notes.exists());
    assert!(named.exists() && !unnamed.exists());
}

#[test]
fn limits_delete_the_oldest_finished_builds_and_their_sources() {
    let host = ApiHost::new("records.builds_max = 1\n");
    let other = "c".repeat(64);
    let old = [finished_build(&host, &other), finished_build(&host, SOURCE)];
    let waits = queued_build(&host, SOURCE);
    let newest = finished_build(&host, SOURCE);
    let (named, unnamed) = (old_source(&host, SOURCE), old_source(&host, &other));
    host.block_on(retention::round(&host.host));
    assert_eq!(recorded_builds(&host), [newest.0, waits.id.0]);
    assert!(old.iter().all(|id| !directory(&host, *id).exists()));
    assert!(directory(&host, waits.id).exists());
    assert!(named.exists() && !unnamed.exists());
}
