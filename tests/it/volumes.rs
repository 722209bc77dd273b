//! Builds on a host with two volumes that both have the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::scheduler;
use agent::triggers::fs_watch::Watch;
use config::BuildId;
use config::builds::{Build, Hold, HoldKind, State, Submitter};
use config::layout::Entry;
use config::task::{BOOTSTRAP_VERSION, Outcome, Provenance};
use jiff::{SignedDuration, Timestamp};
use jobs::hold;
use serde_json::json;
use store::{SnapshotSource, Volume};
use tests::api_host::ApiHost;
use tests::{wait_until, write_file};

use super::openapi::{SOURCE, check};

const MACHINE: &str = "linux";
const TOOLCHAIN: &str = "default";

fn host() -> ApiHost {
    let host = ApiHost::with_volumes("builds.retries_max = 0\n", &["first", "second"]);
    write_file(&host.path("toolchains/default/version"), "1");
    host
}

fn volume(host: &ApiHost, index: usize) -> &Volume {
    host.host.volumes.iter().nth(index).unwrap()
}

fn entry(volume: &Volume, entry: &Entry) -> PathBuf {
    volume.entry(&MACHINE.parse().unwrap(), entry)
}

/// Publishes an image as a bootstrap of the current revision does.
fn publish_image(host: &ApiHost, volume: &Volume) {
    let (machine, toolchain) = (MACHINE.parse().unwrap(), TOOLCHAIN.parse().unwrap());
    let tag = config::Tag::bootstrap();
    let snapshot = volume
        .snapshot(&machine, &SnapshotSource::Current, &toolchain, &tag)
        .unwrap();
    let provenance = Provenance {
        revision_uuid: snapshot.source_uuid().unwrap().to_string(),
        toolchain_id: host.host.toolchains.load(&toolchain).unwrap().id,
        bootstrap_version: BOOTSTRAP_VERSION,
    };
    volume.publish_image(snapshot, &provenance).unwrap();
}

fn take_snapshot(volume: &Volume, id: BuildId) {
    let (machine, toolchain) = (MACHINE.parse().unwrap(), TOOLCHAIN.parse().unwrap());
    volume
        .snapshot(&machine, &SnapshotSource::Current, &toolchain, &id.tag())
        .unwrap();
}

fn has_snapshot(volume: &Volume, id: BuildId) -> bool {
    let (machine, toolchain) = (MACHINE.parse().unwrap(), TOOLCHAIN.parse().unwrap());
    volume
        .has_snapshot(&machine, &toolchain, &id.tag())
        .unwrap()
}

fn record(host: &ApiHost, id: BuildId) -> Build {
    let build = host.block_on(host.host.records.get(id)).unwrap();
    build.unwrap()
}

/// Records a failed build that is held, and the volume on which it ran.
fn held_build(host: &ApiHost, volume: Option<&Path>) -> Build {
    let records = &host.host.records;
    let now = Timestamp::now();
    let request = serde_json::from_value(json!({"machine": MACHINE, "sources": []})).unwrap();
    let toolchain = TOOLCHAIN.parse().unwrap();
    let submitted = records.submit(request, toolchain, Submitter::root(), now);
    let mut build = host.block_on(submitted).unwrap();
    build.enter(State::Starting, now).unwrap();
    build.enter(State::Finished, now).unwrap();
    build.outcome = Some(Outcome::Error);
    build.volume = volume.map(Path::to_owned);
    build.interactive.held = Some(Hold {
        kind: HoldKind::Snapshot,
        until: now + SignedDuration::from_hours(1),
    });
    host.block_on(records.save(&mut build)).unwrap();
    build
}

/// Submits a build over HTTP, and runs the scheduler until the build is finished.
fn build(host: &ApiHost) -> Build {
    host.allow(&[("submit", "s")]);
    let put = host.remote("PUT", &format!("/api/v1/sources/{SOURCE}"));
    put.bearer_auth("s").body("source").send().unwrap();
    let body = json!({"machine": MACHINE, "sources": [{"name": "a.tar", "sha256": SOURCE}]});
    let submit = host.remote("POST", "/api/v1/builds").bearer_auth("s");
    let response = submit.json(&body).send().unwrap();
    assert_eq!(response.status(), 201, "{response:?}");
    let submitted = check("POST", "/api/v1/builds", response);
    let id = BuildId(submitted["id"].as_u64().unwrap());
    let watch = Watch::new(&host.host).unwrap();
    host.runtime
        .spawn(scheduler::run(Arc::clone(&host.host), watch));
    wait_until("the build is finished", || {
        record(host, id).state == State::Finished
    });
    record(host, id)
}

#[test]
fn a_build_runs_on_the_volume_where_its_machine_is_live() {
    let half_deleted = |volume: &Volume| {
        let (from, to) = (
            entry(volume, &Entry::Current),
            entry(volume, &Entry::Deleting),
        );
        fs::rename(from, to).unwrap();
    };
    let without_current = |volume: &Volume| {
        fs::remove_file(entry(volume, &Entry::Current)).unwrap();
    };
    let damages: [&dyn Fn(&Volume); 2] = [&half_deleted, &without_current];
    for damage in damages {
        let host = host();
        damage(volume(&host, 0));
        let second = volume(&host, 1);
        publish_image(&host, second);
        let build = build(&host);
        assert_eq!(build.volume.as_deref(), Some(second.path()), "{build:?}");
        // The machine has no manifest, so the attempt ends when it has read the snapshot.
        assert_eq!((build.attempts, build.outcome), (1, Some(Outcome::Error)));
        let snapshot = second.path().display().to_string();
        assert!(build.message.contains(&snapshot), "{}", build.message);
        wait_until("the snapshot is deleted", || {
            !has_snapshot(second, build.id)
        });
    }
}

#[test]
fn a_hold_is_recovered_if_the_recorded_volume_has_its_snapshot() {
    let host = host();
    let second = volume(&host, 1).path().to_owned();
    let elsewhere = Path::new("/not/in/the/settings");
    for (recorded, place, is_recovered) in [
        (None, 0, true),
        (None, 1, true),
        (Some(second.as_path()), 0, false),
        (Some(second.as_path()), 1, true),
        (Some(elsewhere), 0, true),
    ] {
        let build = held_build(&host, recorded);
        take_snapshot(volume(&host, place), build.id);
        let holds = host.block_on(hold::recover(&host.host)).unwrap();
        let found = holds.iter().any(|it| it.id == build.id);
        assert_eq!(found, is_recovered, "{recorded:?}, {place}");
        let held = record(&host, build.id).interactive.held;
        assert_eq!(held.is_some(), is_recovered, "{recorded:?}, {place}");
    }
}

#[test]
fn the_release_of_an_adopted_hold_deletes_the_snapshot_on_the_recorded_volume() {
    let host = host();
    let (first, second) = (volume(&host, 0), volume(&host, 1));
    let build = held_build(&host, Some(second.path()));
    let id = build.id;
    take_snapshot(first, id);
    take_snapshot(second, id);
    host.block_on(hold::adopt(&host.host, build));
    assert!(host.host.jobs.release_hold(id));
    wait_until("the hold ends", || {
        host.host.jobs.running().holds.is_empty()
    });
    assert!(has_snapshot(first, id));
    assert!(!has_snapshot(second, id));
    assert_eq!(record(&host, id).interactive.held, None);
}
