//! The agent with real btrfs and real QEMU guests: the life of a build, and what a restarted agent
//! does with the builds and guests of the previous one.

use std::fs;
use std::time::Duration;

use ::sys::command;
use config::builds::{Build, State};
use config::task::Outcome;
use guest::network::Network;
use rustix::process::{Signal, kill_process};
use tests::agent::{AgentHost, ENDLESS_PROGRAM};
use tests::attacks::refused;
use tests::hosts::run as run_command;
use tests::wait_until;

fn revisions(build: &Build) -> Vec<&str> {
    build
        .packages
        .iter()
        .map(|built| built.revision.as_str())
        .collect()
}

fn has_image(host: &AgentHost, machine: &str) -> bool {
    host.host
        .view(machine)
        .images
        .iter()
        .any(|image| image.complete)
}

/// Checks the usage and the provenance of build 2, and that it can be rebuilt and found.
fn check_record(host: &AgentHost, build: &Build) {
    assert!(build.usage.cpu_milliseconds > Some(0), "{build:?}");
    assert!(build.usage.memory_bytes_max > Some(0), "{build:?}");
    let text = host.machinectl(&["provenance", "2"]).success().stdout;
    let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
    let subject = &statement["subject"][0];
    let recorded = build.inputs.as_ref().unwrap();
    assert_eq!(subject["name"], build.artifacts[0].name.as_str());
    assert_eq!(
        subject["digest"]["sha256"],
        build.artifacts[0].sha256.as_str()
    );
    let inputs = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(
        inputs[0]["digest"]["sha256"],
        build.sources[0].sha256.as_str()
    );
    assert_eq!(inputs[1]["name"], "machine/demo-1");
    let uri = format!("urn:uuid:{}", recorded.revision_uuid);
    assert_eq!(inputs[1]["uri"], uri);
    assert_eq!(
        inputs[2]["digest"]["sha256"],
        recorded.toolchain_sha256.as_str()
    );

    let answer = host.machinectl(&["rebuild", "2"]).success();
    let rebuilt = host.wait_for(answer.stdout.trim().parse().unwrap(), State::Finished);
    assert_eq!(
        (rebuilt.outcome, &rebuilt.task),
        (Some(Outcome::Success), &build.task)
    );
    let found = [
        "builds",
        "--package",
        "hello",
        "--outcome",
        "success",
        "-n",
        "2",
        "--json",
    ];
    let found: Vec<Build> =
        serde_json::from_str(&host.machinectl(&found).success().stdout).unwrap();
    let ids: Vec<_> = found.iter().map(|build| build.id.0).collect();
    assert_eq!(ids, [rebuilt.id.0, rebuilt.id.0 - 1]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn packages_are_built_and_their_revisions_never_decrease() {
    let mut host = AgentHost::ready("");
    let revision_of = |text| {
        let build = host.wait_for(host.submit("demo", text), State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        revisions(&build).join(" ")
    };
    assert_eq!(
        ["one", "two", "one", "one"].map(revision_of),
        ["r0.0", "r0.1", "r0.2", "r0.2"]
    );

    let build = host.build(2);
    assert_eq!(build.revision, Some(config::Revision(1)));
    let task = build.progress.task;
    assert_eq!((task.done, task.total), (4, 4), "{:?}", build.progress);
    let names: Vec<_> = build
        .artifacts
        .iter()
        .map(|artifact| artifact.name.as_str())
        .collect();
    assert_eq!(names, ["hello_1.0-r0.1_x86_64.ipk", "packages.manifest"]);
    assert!(
        host.log_of(2).contains("build: hello-1.0-r0"),
        "{}",
        host.log_of(2)
    );
    let output = host.state_directory().join("fetched");
    host.machinectl(&["artifacts", "2", "-o", &output.display().to_string()])
        .success();
    let manifest = fs::read_to_string(output.join("packages.manifest")).unwrap();
    assert!(manifest.contains("revision: r0.1"), "{manifest}");
    let provenance = host.machinectl(&["provenance", "2"]).success().stdout;
    let fetched = fs::read_to_string(output.join("provenance.json"));
    assert_eq!(fetched.unwrap(), provenance);
    check_record(&host, &build);
    host.wait_until_torn_down();

    assert_eq!(host.stop(Signal::TERM), Some(0));
    host.assert_torn_down();
    host.machinectl(&["builds"]).refused(4, "no agent answers");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_compile_error_is_not_retried() {
    let host = AgentHost::ready("");
    let build = host.wait_for(
        host.submit_code("demo", "int main(void) { return nonsense; }\n"),
        State::Finished,
    );
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert!(build.packages.is_empty());
    assert!(host.log_of(1).contains("nonsense"), "{}", host.log_of(1));
    let answer = host.machinectl(&["log", "1", "--follow"]);
    assert_eq!(answer.code, Some(30), "{answer:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_killed_agent_restarts_a_bootstrap_and_adopts_a_build() {
    let mut host = AgentHost::ready("");
    let id = host.submit_stopped("demo", "hello");
    wait_until("a guest runs", || host.guests().len() == 1);
    host.stop(Signal::KILL);
    host.start();
    host.wait_for_breakpoint(id);
    assert!(has_image(&host, "demo"));
    check_adoption(&mut host, id, Signal::KILL);
    assert_eq!(
        host.log().matches("build finished").count(),
        1,
        "one result per task"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_restarted_agent_adopts_the_guest_of_a_build() {
    let mut host = AgentHost::ready("");
    let id = host.submit_stopped("demo", "hello");
    host.wait_for_breakpoint(id);
    check_adoption(&mut host, id, Signal::USR2);
}

/// Limits the rate at which the agent acknowledges what a guest puts, so that a put of some MiB
/// takes minutes. Returns a function that removes the limit.
fn slow_puts(host: &AgentHost, id: u64) -> impl Fn() + use<> {
    let network = Network::open(&format!("{}-{id}", host.name())).unwrap();
    let tc = move |line: &str| {
        let mut tc = sys::command::prepare("tc");
        tc.args(line.split(' '));
        let run = || Ok(sys::command::run(tc, Duration::from_mins(1)));
        network.enter(run).unwrap().unwrap();
    };
    tc("qdisc add dev guest0 root tbf rate 2kbit burst 1600 latency 1000s");
    move || tc("qdisc del dev guest0 root")
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_puts_a_file_again_after_the_agent_was_killed() {
    let mut host = AgentHost::ready("");
    let code = "#include <stdio.h>\nint main(void) { for (int n = 0; n < 300000; n++) \
         printf(\"hello, for the %dth time, and not the last\\n\", n); return 0; }\n";
    let source = host.source(code);
    let stopped = ["build", "demo", &source, "--interactive", "start"];
    let answer = host.machinectl(&stopped).success();
    let id = answer.stdout.trim().parse().unwrap();
    host.wait_for_breakpoint(id);
    let remove_limit = slow_puts(&host, id);
    host.resume(id);
    let is_incomplete = |entry: &fs::DirEntry| {
        let is_staged = entry
            .file_name()
            .to_string_lossy()
            .starts_with(".incoming-");
        is_staged && entry.metadata().is_ok_and(|data| data.len() > 1 << 20)
    };
    wait_until("a part of the log has arrived", || {
        let entries = fs::read_dir(host.state_directory().join(format!("builds/{id}")));
        let mut entries = entries.into_iter().flatten().flatten();
        entries.any(|entry| is_incomplete(&entry))
    });
    host.stop(Signal::KILL);
    remove_limit();
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Success), 1),
        "{build:?}"
    );
    assert!(host.log_of(id).contains("hello, for the 299999th time"));
    host.wait_until_torn_down();
}

/// Ends the agent by a signal while a build is stopped at its breakpoint, and checks that the next
/// agent finishes the build with the same guest.
fn check_adoption(host: &mut AgentHost, id: u64, signal: Signal) {
    let guests = host.guests();
    assert_eq!(guests.len(), 1);
    host.stop(signal);
    assert_eq!(host.guests(), guests, "the guest survives the agent");
    host.start();
    host.resume(id);
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts, build.restored),
        (Some(Outcome::Success), 1, true),
        "{build:?}"
    );
    assert_eq!(revisions(&build), ["r0.0"]);
    assert!(host.log_of(id).contains("hello"), "{}", host.log_of(id));
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_terminated_agent_requeues_its_builds() {
    let mut host = AgentHost::ready("");
    let id = host.submit_stopped("demo", "hello");
    host.wait_for_breakpoint(id);
    assert_eq!(host.stop(Signal::TERM), Some(0));
    host.assert_torn_down();
    host.start();
    host.wait_for_breakpoint(id);
    host.resume(id);
    let build = host.wait_for(id, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_bootstrap_times_out_if_the_guest_never_asks_for_its_task() {
    let mut host = AgentHost::new("bootstrap.start_seconds_max = 2\nbootstrap.retries_max = 0\n");
    // Without a kernel the guest waits for a boot loader, which its disk does not have.
    host.add("mute", |files| {
        tests::write_file(
            &files.join("manifest"),
            ": 1\nid: mute\nsummary: Never answers\nram-minimum: 65536\n",
        );
    });
    host.add_toolchain("0.1.0");
    host.start();
    let id = host.submit("mute", "hello");
    wait_until("the build has the reason for its wait", || {
        host.build(id).message.contains("did not answer within 2 s")
    });
    assert_eq!(host.build(id).state, State::Queued);
    host.wait_until_torn_down();
    host.machinectl(&["cancel", &id.to_string()]).success();
    assert_eq!(host.build(id).outcome, Some(Outcome::Abort));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_whose_guest_is_killed_is_retried_and_then_abnormal() {
    let host = AgentHost::ready("builds.retries_max = 1\n");
    let id = host.submit_code("demo", ENDLESS_PROGRAM);
    for attempt in 1..=2 {
        wait_until("the guest runs", || {
            let build = host.build(id);
            build.attempts == attempt && build.state == State::Running && !host.guests().is_empty()
        });
        for guest in host.guests() {
            kill_process(guest, Signal::KILL).unwrap();
        }
    }
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Abnormal), 2),
        "{build:?}"
    );
    assert!(
        build.message.contains("before it had put its result"),
        "{}",
        build.message
    );
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn two_machines_run_two_builds_each_concurrently() {
    let mut host = AgentHost::new("guests.parallel_max = 4\n");
    host.add("demo", |_| {});
    host.add("other", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let machines = ["demo", "other", "demo", "other"];
    let builds = machines.map(|machine| host.submit_stopped(machine, machine));
    for id in builds {
        host.wait_for_breakpoint(id);
    }
    assert_eq!(host.guests().len(), 4);
    for id in builds {
        host.resume(id);
    }
    for id in builds {
        let build = host.wait_for(id, State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        let printed = format!("\n{}\n", build.machine);
        assert!(host.log_of(id).contains(&printed), "{}", host.log_of(id));
    }
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_can_be_canceled_while_it_runs_but_not_after_it_finished() {
    let host = AgentHost::ready("");
    let id = host.submit_code("demo", ENDLESS_PROGRAM);
    host.wait_for(id, State::Running);
    host.machinectl(&["cancel", &id.to_string()]).success();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.message.as_str()),
        (Some(Outcome::Abort), "it was canceled")
    );
    host.machinectl(&["cancel", &id.to_string()])
        .refused(3, "has already finished: abort");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn deleting_a_machine_aborts_queued_builds_and_waits_for_the_running_one() {
    let host = AgentHost::ready("guests.parallel_max = 1\n");
    let running = host.submit_stopped("demo", "one");
    let queued = host.submit("demo", "two");
    host.wait_for_breakpoint(running);
    let deletion = host.machinectl(&["delete", "demo", "--timeout", "0"]);
    assert_eq!(deletion.code, Some(17), "{deletion:?}");
    for message in [
        format!("demo: note: used by build {running}\n"),
        format!("demo: note: queued for it, and aborted: build {queued}\n"),
        "in use".to_owned(),
    ] {
        assert!(
            deletion.stderr.contains(&message),
            "{message}: {deletion:?}"
        );
    }
    let aborted = host.wait_for(queued, State::Finished);
    assert_eq!(
        (aborted.outcome, aborted.message.as_str()),
        (Some(Outcome::Abort), "machine demo was deleted")
    );
    host.resume(running);
    let built = host.wait_for(running, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    // The caller of `delete` has ended, so the agent finishes the deletion.
    wait_until("the machine is deleted", || host.host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_use_the_old_image_until_a_new_toolchain_is_installed() {
    let mut host = AgentHost::new("");
    host.add_container("demo", |_| {});
    host.add_worker("default", &script_worker(""));
    host.start();
    wait_until("the machine is bootstrapped", || has_image(&host, "demo"));
    let toolchain_of_image = || {
        host.host.view("demo").images[0]
            .provenance
            .clone()
            .unwrap()
            .toolchain_id
    };
    // The agent also notices a change by hand, without machinectl.
    let before = toolchain_of_image();
    tests::write_file(
        &host.host.mount.path().join("toolchains/default/version"),
        "0.2.0",
    );
    wait_until("the new image is published", || {
        toolchain_of_image() != before
    });

    let before = toolchain_of_image();
    host.add_worker(
        "default",
        &script_worker("until [ -e /gate ]; do sleep 0.1; done"),
    );
    let root = "demo/demo-default-bootstrap/root";
    let root = host.host.volume.path().join(root);
    wait_until("the bootstrap has begun", || root.exists());
    let build = host.wait_for(host.submit("demo", "hello"), State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.attempts, 1);
    let used = build.inputs.unwrap().toolchain_sha256;
    assert_eq!(used, before, "the build used the old image");
    assert_eq!(toolchain_of_image(), before);
    tests::write_file(&root.join("gate"), "");
    wait_until("the new image is published", || {
        toolchain_of_image() != before
    });
}

/// Returns a worker that runs these commands in a bootstrap and builds nothing.
pub(crate) fn script_worker(bootstrap: &str) -> String {
    format!(
        "#!/bin/sh
host=169.254.111.222
cd /tmp
put() {{ printf ': 1\\nstatus: success\\n' >$1; tftp -p -l $1 -r $1 $host; }}
if [ $1 = bootstrap ]; then
    {bootstrap}
    put bootstrap.manifest
    exit
fi
tftp -g -r task.manifest $host
put result.manifest
"
    )
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_first_start_after_a_boot_cleans_and_later_starts_spare_unmanaged_snapshots() {
    let mut host = AgentHost::new("");
    host.add("demo", |_| {});
    snapshot(&host, "7");
    snapshot(&host, "mine");
    tests::write_file(&host.host.volume.path().join("demo/notes.txt"), "unmanaged");
    host.start();
    assert_eq!(snapshots(&host), Vec::<String>::new());
    assert!(host.host.volume.path().join("demo/notes.txt").exists());
    host.stop(Signal::TERM);
    snapshot(&host, "mine");
    host.start();
    assert_eq!(snapshots(&host), ["mine"]);
}

/// Creates a snapshot of the machine `demo` that is not in use.
fn snapshot(host: &AgentHost, tag: &str) {
    let (machine, toolchain) = ("demo".parse().unwrap(), "default".parse().unwrap());
    let tag = tag.parse().unwrap();
    let volume = &host.host.volume;
    let snapshot = volume.snapshot(&machine, &store::SnapshotSource::Current, &toolchain, &tag);
    drop(snapshot.unwrap());
}

fn snapshots(host: &AgentHost) -> Vec<String> {
    let view = host.host.view("demo");
    view.snapshots
        .iter()
        .map(|snapshot| snapshot.tag.to_string())
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn no_guest_starts_on_a_nearly_full_disk_and_the_reason_is_shown() {
    let host = AgentHost::ready("paths.reserve_mib = 2500\n");
    wait_until("the machine is bootstrapped", || has_image(&host, "demo"));
    let filler = host.host.volume.path().join("filler");
    let file = fs::File::create(&filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 30).unwrap();
    file.sync_all().unwrap();
    let reason = "has less room left than its reserve of 2500 MiB: delete machines";
    let id = host.submit("demo", "hello");
    wait_until("the build has the reason for its wait", || {
        host.build(id).message.contains(reason)
    });
    let status = host.machinectl(&["host", "status"]).success().stdout;
    assert!(status.contains(reason), "{status}");
    assert!(host.log().contains(reason), "{}", host.log());
    // The commit frees the space, and the removal of the name wakes the agent.
    file.set_len(0).unwrap();
    host.host.volume.commit().unwrap();
    fs::remove_file(filler).unwrap();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_second_agent_and_bad_settings_are_refused() {
    let mut host = AgentHost::new("");
    host.start();
    let ended = host.command().status().unwrap();
    assert_eq!(ended.code(), Some(3));
    assert!(
        host.log()
            .contains("another agent runs with the run directory"),
        "{}",
        host.log()
    );
    second_agent_with_the_same_state(&host);
    let bad = AgentHost::new("guests.user = \"nobody-knows\"\nx.y = 1\n");
    assert_eq!(bad.command().status().unwrap().code(), Some(2));
    assert!(
        bad.log().contains("agent.toml:8: `x` is not a setting"),
        "{}",
        bad.log()
    );
}

/// Starts a second agent with the state directory of the first and a run directory and a database
/// of package revisions of its own, and checks that it refuses to run.
fn second_agent_with_the_same_state(host: &AgentHost) {
    let other = tempfile::tempdir().unwrap();
    let state = host.state_directory();
    let settings = fs::read_to_string(state.with_file_name("agent.toml")).unwrap();
    let run = host.run_directory().display().to_string();
    let settings = settings.replace(&run, &other.path().join("run").display().to_string());
    let database = other.path().join("pr.sqlite3");
    let settings = format!("{settings}pr.database = \"{}\"\n", database.display());
    let path = other.path().join("agent.toml");
    tests::write_file(&path, &settings);
    let mut agent = command::prepare(tests::program("buildhost-agent"));
    agent.arg("--config").arg(path);
    let ended = run_command(agent, b"");
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let expected = format!(
        "with the state directory {}, whose file `lock`",
        state.display()
    );
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
    refused(
        "second agent -> state",
        "the same state directory",
        &ended.stderr,
    );
}
