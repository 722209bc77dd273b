//! Hosts of a farm: real coordinators, PostgreSQL, agents and guests. Each build has one result, whatever
//! is killed, stopped or cut off.

mod farm;
mod sources;
mod trials;

use std::fs;

use config::builds::Build;
use config::task::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::AgentHost;
use tests::{wait_until, write_file};

use crate::controllers::{builds, controllers};
use farm::{Farm, host};

/// A script that waits until its gate is open.
const GATED: &str = "echo begin; while [ ! -e /gate ]; do sleep 0.1; done; echo end";

/// Waits until a host runs the script of a build, and returns the local build.
fn wait_for_begin(host: &AgentHost) -> u64 {
    let mut id = 0;
    wait_until("the host runs a build", || {
        id = builds(host).iter().map(|it| it.id.0).max().unwrap_or(0);
        id > 0 && host.log_of(id).contains("begin")
    });
    id
}

/// Returns the numbers of the processes of guards below a host's run directory.
fn guards(host: &AgentHost) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap();
    let directory = host.run_directory().display().to_string();
    let is_guard = |path: &std::path::Path| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("buildhost-guard") && line.contains(&directory)
    };
    let paths = processes.filter_map(|it| Some(it.ok()?.path()));
    let guards = paths.filter(|path| is_guard(path));
    guards.map(|path| path.display().to_string()).collect()
}

fn wait_until_settled(host: &AgentHost) {
    wait_until("the leases are settled", || {
        controllers(host)[0].open.is_empty()
    });
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_build_is_placed_on_a_host_and_its_result_arrives_once() {
    let farm = Farm::start(2);
    let host = host(&farm, "one");
    let good = farm.submit("good", "echo hello from the farm");
    let bad = farm.submit("bad", "exit 3");
    farm.wait_for_outcome(good, "success");
    farm.wait_for_outcome(bad, "error");
    wait_until_settled(&host);
    let local = builds(&host);
    assert_eq!(local.len(), 2, "{local:?}");
    let is_good = |it: &&Build| it.target.to_string() == "good";
    let first = local.iter().find(is_good).unwrap();
    assert_eq!(first.submitter.as_str(), "controller:farm");
    assert!(host.log_of(first.id.0).contains("hello from the farm"));
    let [status] = &controllers(&host)[..] else {
        panic!("one controller");
    };
    assert_eq!((&*status.protocol, status.tasks), ("farm", 2));
    assert_eq!(status.contact.failure, "");
    wait_until("no guard is left", || guards(&host).is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn the_files_of_a_build_are_read_when_its_host_has_ended() {
    let objects = tempfile::tempdir().unwrap();
    let farm = Farm::with_objects(2, objects.path());
    let mut host = host(&farm, "one");
    let build = farm.submit("kept", "echo hello for ever");
    farm.wait_for_outcome(build, "success");
    wait_until("the files are in the object store", || {
        farm.state(build)["files"] == "stored"
    });
    host.stop(Signal::KILL);
    assert!(farm.file(build, "log").contains("hello for ever"));
    assert_eq!(farm.file(build, "artifacts"), "[]");
    let number = build.to_string();
    let log = farm.machinectl(&host, &["log", &number]).success();
    assert!(log.stdout.contains("hello for ever"), "{log:?}");
    let shown = farm.machinectl(&host, &["builds", &number]).success();
    assert!(shown.stdout.contains("in the object store"), "{shown:?}");
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn the_command_line_submits_a_script_to_a_farm_and_follows_it() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let directory = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        write_file(&path, text);
        path.display().to_string()
    };
    let good = script("hello-1.0", "#!/bin/sh\necho built $((6 * 7))\n");
    let built = farm.machinectl(&host, &["build", "demo", &good, "--script", "--follow"]);
    let built = built.success();
    assert!(built.stdout.contains("built 42"), "{built:?}");
    assert!(
        built.stderr.contains("finished on one with success"),
        "{built:?}"
    );
    let bad = script("bye-1.0", "#!/bin/sh\nexit 3\n");
    let failed = farm.machinectl(&host, &["build", "demo", &bad, "--script", "--follow"]);
    assert_eq!(failed.code, Some(30), "{failed:?}");
    let listed = farm.machinectl(&host, &["builds"]).success().stdout;
    assert!(
        listed.contains("hello-1.0") && listed.contains("bye-1.0"),
        "{listed}"
    );
    let archive = script("hello.tar", "ustar");
    let refused = farm.machinectl(&host, &["build", "demo", &archive, "--script"]);
    assert!(refused.stderr.contains("is no script"), "{refused:?}");
    let unknown = farm.machinectl(&host, &["build", "demo", &good, "--script", "--hold"]);
    assert!(
        unknown.stderr.contains("--hold has no meaning for a farm"),
        "{unknown:?}"
    );
    let without_farm = host.machinectl(&["build", "demo", &good, "--script"]);
    assert!(
        without_farm.stderr.contains("--script needs a farm"),
        "{without_farm:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_guest_is_adopted_after_a_kill_of_its_agent_and_done_once() {
    let farm = Farm::start(1);
    let mut host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    let id = wait_for_begin(&host);
    assert_eq!(guards(&host).len(), 1);
    host.stop(Signal::KILL);
    host.start();
    host.open_gate("demo", id);
    farm.wait_for_outcome(build, "success");
    wait_until_settled(&host);
    assert_eq!(builds(&host).len(), 1, "the same guest");
    assert_eq!(farm.losses(build), 0);
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_guard_ends_the_guest_of_a_stopped_agent_and_another_host_does_the_build() {
    let farm = Farm::start(2);
    let first = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    let id = wait_for_begin(&first);
    let run_dir = first.run_directory().join("guests").join(id.to_string());
    let process = fs::read_to_string(run_dir.join("process.json")).unwrap();
    let process: serde_json::Value = serde_json::from_str(&process).unwrap();
    let guest = format!("/proc/{}/stat", process["pid"]);
    let second = host(&farm, "two");
    first.signal(Signal::STOP);
    // Its parent is stopped, so that it stays as a zombie.
    wait_until("the guard has ended the guest", || {
        fs::read_to_string(&guest).map_or(true, |it| it.contains(") Z "))
    });
    assert_eq!(farm.state(build)["host"], "one", "before the lease is over");
    let other = wait_for_begin(&second);
    second.open_gate("demo", other);
    farm.wait_for_outcome(build, "success");
    first.signal(Signal::CONT);
    wait_until_settled(&first);
    let local = first.build(id);
    assert_ne!(local.outcome, Some(Outcome::Success));
    assert_eq!(farm.state(build)["host"], "two");
    wait_until("no guard is left", || {
        guards(&first).is_empty() && guards(&second).is_empty()
    });
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_guest_is_ended_when_its_guard_dies_and_the_build_runs_again() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    end_guard_and_finish(&farm, &host, build);
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn an_adopted_guest_is_ended_when_its_guard_dies() {
    let farm = Farm::start(1);
    let mut host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    wait_for_begin(&host);
    host.stop(Signal::KILL);
    host.start();
    let answered = || controllers(&host)[0].contact.answered;
    let mut first = None;
    wait_until("the farm answers", || {
        first = answered();
        first.is_some()
    });
    // Polls begin when the guest is adopted.
    wait_until("the farm answers a poll", || answered() > first);
    end_guard_and_finish(&farm, &host, build);
}

/// Kills the guard of the guest that runs, and lets the next guest of the build succeed.
fn end_guard_and_finish(farm: &Farm, host: &AgentHost, build: u64) {
    let id = wait_for_begin(host);
    let [guard] = &guards(host)[..] else {
        panic!("one guard");
    };
    let pid = guard.trim_start_matches("/proc/").parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_until("the agent has ended the guest", || {
        host.build(id).outcome.is_some()
    });
    assert_ne!(host.build(id).outcome, Some(Outcome::Success));
    let mut next = id;
    wait_until("the build runs again", || {
        next = builds(host).iter().map(|it| it.id.0).max().unwrap();
        next > id && host.log_of(next).contains("begin")
    });
    host.open_gate("demo", next);
    farm.wait_for_outcome(build, "success");
    assert_eq!(farm.losses(build), 1);
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn builds_survive_a_killed_coordinator_and_a_restart_of_the_database() {
    let mut farm = Farm::start(2);
    let host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    let id = wait_for_begin(&host);
    farm.kill_coordinator(0);
    farm.restart_database();
    host.open_gate("demo", id);
    farm.wait_for_outcome(build, "success");
    let next = farm.submit("next", "true");
    farm.wait_for_outcome(next, "success");
    wait_until_settled(&host);
    assert_eq!(builds(&host).len(), 2);
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_build_ends_when_it_is_canceled_in_the_farm() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    let id = wait_for_begin(&host);
    farm.cancel(build);
    farm.wait_for_outcome(build, "abort");
    wait_until_settled(&host);
    let local = host.build(id);
    assert_eq!(local.outcome, Some(Outcome::Abort));
    assert!(
        local.message.contains("canceled in the farm"),
        "{}",
        local.message
    );
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_host_whose_key_is_revoked_stops_its_guest_and_says_so() {
    let farm = Farm::start(1);
    let host = host(&farm, "one");
    let build = farm.submit("gated", GATED);
    let id = wait_for_begin(&host);
    farm.revoke("one");
    wait_until("the guest ends at its deadline", || {
        host.build(id).outcome.is_some()
    });
    assert_eq!(farm.state(build)["outcome"], serde_json::Value::Null);
    let said = controllers(&host)[0].contact.failure.clone();
    assert!(said.contains("refuses the key"), "{said}");
    farm.enrol(&host, "one");
    let id = {
        let mut next = 0;
        wait_until("the build runs again", || {
            next = builds(&host).iter().map(|it| it.id.0).max().unwrap();
            next > id && host.log_of(next).contains("begin")
        });
        next
    };
    host.open_gate("demo", id);
    farm.wait_for_outcome(build, "success");
}

#[test]
#[ignore = "needs root: real btrfs, containers and PostgreSQL"]
fn a_host_with_other_content_gets_no_builds_until_its_operator_mends_it() {
    let farm = Farm::start(1);
    let first = host(&farm, "one");
    wait_until("nobody knows the content of the revision", || {
        let refused = farm.publish("demo", 1);
        refused.is_err_and(|it| it.contains("buildhost record demo 1"))
    });
    first.machinectl(&["record", "demo"]).success();
    wait_until("the revision is published with its content", || {
        farm.publish("demo", 1).is_ok()
    });
    let mut second = AgentHost::new(&farm.settings());
    second.add_container("demo", |files| write_file(&files.join("other"), "content"));
    second.add_toolchain("1");
    second.start();
    farm.enrol(&second, "two");
    let shown = || farm.machinectl(&first, &["hosts", "two"]).success().stdout;
    wait_until("the host does not know the content", || {
        shown().contains("`buildhost record demo 1` there reads it")
    });
    second.machinectl(&["record", "demo"]).success();
    wait_until("the host has other content", || {
        shown().contains("with other content than the published one")
    });
    let said = second.machinectl(&["controllers"]).success().stdout;
    assert!(said.contains("with other content"), "{said}");
    let found = second.machinectl(&["doctor"]).stdout;
    assert!(found.contains("farm-content"), "{found}");
    // A window that is always open.
    let days = "mon,tue,wed,thu,fri,sat,sun";
    let times = ["--each", days, "--from", "00:00", "--until", "00:00"];
    let window = ["drain", "one", "--zone", "UTC", "--reason", "kernel"];
    farm.machinectl(&first, &[&window[..], &times[..]].concat())
        .success();
    let listed = farm.machinectl(&first, &["hosts"]).success();
    assert!(listed.stdout.contains("maintenance"), "{listed:?}");
    let build = farm.submit("waits", "true");
    wait_until("the reason is the content", || {
        let why = farm.machinectl(&first, &["explain", &build.to_string()]);
        why.stdout
            .contains("host two has revision 1 of demo with other content")
    });
    second.machinectl(&["delete", "demo"]).success();
    farm.wait_for_outcome(build, "success");
    assert_eq!(farm.state(build)["host"], "two");
    assert!(!shown().contains("other content"));
    second.machinectl(&["verify", "demo"]).success();
    let undrain = ["undrain", "one", "--window"];
    let unknown = farm.machinectl(&first, &[&undrain[..], &["7"]].concat());
    assert!(unknown.stderr.contains("has no window 7"), "{unknown:?}");
    farm.machinectl(&first, &[&undrain[..], &["1"]].concat())
        .success();
    let shown = farm.machinectl(&first, &["hosts", "one"]).success().stdout;
    assert!(!shown.contains("maintenance"), "{shown}");
}
