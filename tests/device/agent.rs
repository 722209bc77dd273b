//! The agent on real btrfs with real QEMU guests: what it promises to who submits a
//! build, and what it does after it was killed.

use std::fs;

use config::builds::{Build, State};
use config::task::Outcome;
use rustix::process::{Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;

fn revisions(build: &Build) -> Vec<&str> {
    build
        .packages
        .iter()
        .map(|built| built.revision.as_str())
        .collect()
}

fn image_serves(host: &AgentHost, machine: &str) -> bool {
    host.host
        .look(machine)
        .images
        .iter()
        .any(|image| image.complete)
}

/// What a build took, where its files came from, and that it can be done again and
/// be deleted.
fn is_recorded(host: &AgentHost, build: &Build) {
    let known = build
        .usage
        .cpu_milliseconds
        .zip(build.usage.memory_bytes_max);
    assert!(
        known.is_some_and(|(cpu, memory)| cpu > 0 && memory > 0),
        "{build:?}"
    );
    let text = host.machinectl(&["provenance", "2"]).good().stdout;
    let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
    let subject = &statement["subject"][0];
    let made = build.inputs.as_ref().unwrap();
    assert_eq!(subject["name"], build.artifacts[0].name.as_str());
    assert_eq!(
        subject["digest"]["sha256"],
        build.artifacts[0].sha256.as_str()
    );
    let needed = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(
        needed[0]["digest"]["sha256"],
        build.sources[0].sha256.as_str()
    );
    assert_eq!(needed[1]["name"], "machine/demo-1");
    assert_eq!(needed[1]["uri"], format!("urn:uuid:{}", made.revision_uuid));
    assert_eq!(
        needed[2]["digest"]["sha256"],
        made.toolchain_sha256.as_str()
    );

    let again = host.machinectl(&["rebuild", "2"]).good().stdout;
    let again = host.wait_for(again.trim().parse().unwrap(), State::Finished);
    assert_eq!(
        (again.outcome, &again.task),
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
    let found: Vec<Build> = serde_json::from_str(&host.machinectl(&found).good().stdout).unwrap();
    let ids: Vec<_> = found.iter().map(|build| build.id.0).collect();
    assert_eq!(ids, [again.id.0, again.id.0 - 1]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_package_goes_all_the_way_and_its_revision_never_goes_down() {
    let mut host = AgentHost::ready("");
    let words = ["one", "two", "one", "one"];
    let revision_of = |words| {
        let build = host.wait_for(host.submit("demo", words), State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        revisions(&build).join(" ")
    };
    assert_eq!(words.map(revision_of), ["r0.0", "r0.1", "r0.2", "r0.2"]);

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
    let output = host.state().join("fetched");
    host.machinectl(&["artifacts", "2", "-o", &output.display().to_string()])
        .good();
    let manifest = fs::read_to_string(output.join("packages.manifest")).unwrap();
    assert!(manifest.contains("revision: r0.1"), "{manifest}");
    let provenance = host.machinectl(&["provenance", "2"]).good().stdout;
    let fetched = fs::read_to_string(output.join("provenance.json"));
    assert_eq!(fetched.unwrap(), provenance);
    is_recorded(&host, &build);
    host.assert_nothing_is_left();

    assert_eq!(host.end(Signal::TERM), Some(0));
    host.assert_nothing_is_left();
    host.machinectl(&["builds"]).refused(4, "no agent answers");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_package_that_does_not_compile_is_the_packages_fault_and_is_built_once() {
    let host = AgentHost::ready("");
    let build = host.wait_for(
        host.submit_code("demo", "int main(void) { return nonsense; }\n"),
        State::Finished,
    );
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert!(build.packages.is_empty());
    assert!(host.log_of(1).contains("nonsense"), "{}", host.log_of(1));
    let answer = host.machinectl(&["log", "1", "--follow"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_killed_in_a_bootstrap_begins_it_again_and_in_a_build_goes_on_with_it() {
    let mut host = AgentHost::ready("");
    let id = host.submit("demo", "hello");
    wait_until("the bootstrap's guest runs", || host.guests().len() == 1);
    host.end(Signal::KILL);
    host.start();
    host.wait_for(id, State::Running);
    assert!(image_serves(&host, "demo"));
    goes_on_after(&mut host, id, Signal::KILL);
    assert_eq!(
        host.log().matches("build finished").count(),
        1,
        "one result per task"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_is_restarted_while_a_guest_builds() {
    let mut host = AgentHost::ready("");
    let id = host.submit("demo", "hello");
    host.wait_for(id, State::Running);
    goes_on_after(&mut host, id, Signal::HUP);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_is_killed_while_a_guest_puts_a_file() {
    let mut host = AgentHost::ready("");
    let id = host.submit_code(
        "demo",
        "#include <stdio.h>\nint main(void) { for (int n = 0; n < 300000; n++) \
         printf(\"hello, for the %dth time, and not the last\\n\", n); return 0; }\n",
    );
    let incoming = || {
        let entries = fs::read_dir(host.state().join(format!("builds/{id}")));
        let mut names = entries.into_iter().flatten().flatten();
        names.any(|it| {
            let is_half = it.file_name().to_string_lossy().starts_with(".incoming-");
            is_half && it.metadata().is_ok_and(|it| it.len() > 1 << 20)
        })
    };
    wait_until("its log comes", incoming);
    host.end(Signal::KILL);
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Success), 1),
        "{build:?}"
    );
    assert!(host.log_of(id).contains("hello, for the 299999th time"));
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

/// Ends the agent by a signal and starts another one, which must finish the build
/// with the guest that runs.
fn goes_on_after(host: &mut AgentHost, id: u64, signal: Signal) {
    let guests = host.guests();
    assert_eq!(guests.len(), 1);
    host.end(signal);
    assert_eq!(host.guests(), guests, "the guest runs on");
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts, build.restored),
        (Some(Outcome::Success), 1, true),
        "{build:?}"
    );
    assert_eq!(revisions(&build), ["r0.0"]);
    assert!(host.log_of(id).contains("hello"), "{}", host.log_of(id));
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_agent_that_is_told_to_stop_puts_its_builds_back_into_the_queue() {
    let mut host = AgentHost::ready("");
    let id = host.submit("demo", "hello");
    host.wait_for(id, State::Running);
    assert_eq!(host.end(Signal::TERM), Some(0));
    host.assert_nothing_is_left();
    host.start();
    let build = host.wait_for(id, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_that_never_answers_is_given_up_and_told() {
    let mut host = AgentHost::new("bootstrap.start_seconds_max = 2\nbootstrap.retries_max = 0\n");
    // Without a kernel it waits for a boot loader that the disk does not have.
    host.add("mute", |files| {
        tests::put(
            &files.join("manifest"),
            ": 1\nid: mute\nsummary: Says nothing\nram-minimum: 65536\n",
        );
    });
    host.add_toolchain("0.1.0");
    host.start();
    let id = host.submit("mute", "hello");
    wait_until("the build knows why it waits", || {
        host.build(id).message.contains("did not answer within 2 s")
    });
    assert_eq!(host.build(id).state, State::Queued);
    host.assert_nothing_is_left();
    host.machinectl(&["cancel", &id.to_string()]).good();
    assert_eq!(host.build(id).outcome, Some(Outcome::Abort));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_whose_guest_hangs_or_dies_is_tried_again_and_then_abnormal() {
    let host = AgentHost::ready("builds.retries_max = 1\n");
    let id = host.submit("demo", "hello");
    for attempt in 1..=2 {
        wait_until("its guest runs", || {
            let build = host.build(id);
            build.attempts == attempt && build.state == State::Running && !host.guests().is_empty()
        });
        for guest in host.guests() {
            // One that is gone already is as dead as we want it.
            let _ = kill_process(guest, Signal::KILL);
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
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn two_machines_do_two_builds_each_at_once() {
    let mut host = AgentHost::new("guests.parallel_max = 4\n");
    host.add("demo", |_| {});
    host.add("other", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    wait_until("both are bootstrapped", || {
        image_serves(&host, "demo") && image_serves(&host, "other")
    });
    let builds = ["demo", "other", "demo", "other"].map(|machine| host.submit(machine, machine));
    wait_until("all four run at once", || host.guests().len() == 4);
    for id in builds {
        let build = host.wait_for(id, State::Finished);
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
        let says = format!("\n{}\n", build.machine);
        assert!(host.log_of(id).contains(&says), "{}", host.log_of(id));
    }
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_is_cancelled_while_it_runs_but_not_when_it_is_over() {
    let host = AgentHost::ready("");
    let id = host.submit("demo", "hello");
    host.wait_for(id, State::Running);
    host.machinectl(&["cancel", &id.to_string()]).good();
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.message.as_str()),
        (Some(Outcome::Abort), "it was cancelled")
    );
    host.machinectl(&["cancel", &id.to_string()])
        .refused(3, "has already finished: abort");
    wait_until("all is torn down", || host.networks().is_empty());
    host.assert_nothing_is_left();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_is_deleted_when_its_running_build_is_over_and_what_waits_is_given_up() {
    let host = AgentHost::ready("guests.parallel_max = 1\n");
    let (runs, waits) = (host.submit("demo", "one"), host.submit("demo", "two"));
    host.wait_for(runs, State::Running);
    host.machinectl(&["delete", "demo", "--timeout", "0"])
        .refused(17, "in use");
    let given_up = host.wait_for(waits, State::Finished);
    assert_eq!(
        (given_up.outcome, given_up.message.as_str()),
        (Some(Outcome::Abort), "machine demo was deleted")
    );
    let built = host.wait_for(runs, State::Finished);
    assert_eq!(built.outcome, Some(Outcome::Success), "{built:?}");
    // Whoever began it is gone: the agent goes on with it.
    wait_until("the machine is gone", || host.host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_new_toolchain_is_installed_while_the_old_image_serves() {
    let host = AgentHost::ready("");
    wait_until("the machine is bootstrapped", || {
        image_serves(&host, "demo")
    });
    let made_from = || {
        host.host.look("demo").images[0]
            .provenance
            .clone()
            .unwrap()
            .toolchain_id
    };
    let before = made_from();
    host.add_toolchain("0.2.0");
    let id = host.submit("demo", "hello");
    let build = host.wait_for(id, State::Starting);
    assert_eq!(build.attempts, 1);
    assert_eq!(made_from(), before, "the old image serves");
    assert_eq!(
        host.wait_for(id, State::Finished).outcome,
        Some(Outcome::Success)
    );
    wait_until("the new image serves", || made_from() != before);
    // Changed by hand, without machinectl, it is noticed as well.
    let before = made_from();
    tests::put(
        &host.host.mount.path().join("toolchains/default/version"),
        "0.3.0",
    );
    wait_until("the new image serves", || made_from() != before);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_first_start_since_the_boot_cleans_and_a_later_one_leaves_the_rest_alone() {
    let mut host = AgentHost::new("");
    host.add("demo", |_| {});
    snapshot(&host, "7");
    snapshot(&host, "mine");
    tests::put(
        &host.host.volume.path().join("demo/notes.txt"),
        "a stranger",
    );
    host.start();
    assert_eq!(snapshots(&host), Vec::<String>::new());
    assert!(host.host.volume.path().join("demo/notes.txt").exists());
    host.end(Signal::TERM);
    snapshot(&host, "mine");
    host.start();
    assert_eq!(snapshots(&host), ["mine"]);
}

/// A snapshot of the machine `demo` that nobody holds.
fn snapshot(host: &AgentHost, tag: &str) {
    let (machine, toolchain) = ("demo".parse().unwrap(), "default".parse().unwrap());
    let tag = tag.parse().unwrap();
    let volume = &host.host.volume;
    let taken = volume.snapshot(&machine, &store::Origin::Current, &toolchain, &tag);
    drop(taken.unwrap());
}

fn snapshots(host: &AgentHost) -> Vec<String> {
    let view = host.host.look("demo");
    view.snapshots
        .iter()
        .map(|snapshot| snapshot.tag.to_string())
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn no_guest_starts_on_a_disk_that_is_nearly_full_and_everybody_is_told() {
    let host = AgentHost::ready("paths.reserve_mib = 2500\n");
    wait_until("the machine is bootstrapped", || {
        image_serves(&host, "demo")
    });
    let filler = host.host.volume.path().join("filler");
    let file = fs::File::create(&filler).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 2 << 30).unwrap();
    file.sync_all().unwrap();
    let why = "has less room left than its reserve of 2500 MiB: delete machines";
    let id = host.submit("demo", "hello");
    wait_until("the build knows why it waits", || {
        host.build(id).message.contains(why)
    });
    assert!(host.machinectl(&["host"]).good().stdout.contains(why));
    assert!(host.log().contains(why), "{}", host.log());
    // The room is there from the commit on; the name that goes wakes the agent.
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
    let bad = AgentHost::new("guests.user = \"nobody-knows\"\n");
    assert_eq!(bad.command().status().unwrap().code(), Some(3));
    assert!(bad.log().contains("useradd"), "{}", bad.log());
    let bad = AgentHost::new("guests.user = 7\nx.y = 1\n");
    assert_eq!(bad.command().status().unwrap().code(), Some(2));
    assert!(
        bad.log().contains("agent.toml:7: `x` is not a setting"),
        "{}",
        bad.log()
    );
}
