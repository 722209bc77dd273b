//! Builds that ask for resources, in real guests.

use std::fs;

use config::builds::{Build, StartKind, State};
use config::queue::Queue;
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::{AgentHost, GATED_PROGRAM, printing_program};
use tests::wait_until;

use crate::checkpoints::wait_until_ready;

/// The source of a program that prints the size of its guest and does not end by itself.
const SIZE_PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) {
    long mebibytes = sysconf(_SC_PHYS_PAGES) / (1048576 / sysconf(_SC_PAGESIZE));
    printf("size of the guest: %ld %ld end\n", sysconf(_SC_NPROCESSORS_ONLN), mebibytes);
    fflush(stdout);
    for (;;) sleep(1000);
}
"#;

/// Submits a build with these options and returns its number. An equal build may be coalesced.
fn submit(host: &AgentHost, code: &str, options: &[&str]) -> u64 {
    let source = host.source(code);
    let answer = host.machinectl(&[&["build", "demo", &source], options].concat());
    answer.success().stdout.trim().parse().unwrap()
}

/// Returns the numbers of processors and MiB that the guest of a build has printed.
fn printed_size(host: &AgentHost, id: u64) -> (u64, u64) {
    let log = host.state_directory().join(format!("builds/{id}/log.live"));
    let mut size = None;
    wait_until(&format!("build {id} prints its size"), || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        size = text.lines().find_map(|line| {
            let (_, numbers) = line.split_once("size of the guest: ")?;
            let mut words = numbers.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        });
        size.is_some()
    });
    size.unwrap()
}

fn queue(host: &AgentHost) -> Queue {
    let answer = host.machinectl(&["top", "--json"]).success();
    serde_json::from_str(&answer.stdout).unwrap()
}

/// Returns the processors and the MiB that the agent has allocated.
fn allocated(host: &AgentHost) -> (u64, u64) {
    let queue = queue(host);
    (queue.cpus.taken, queue.memory_mib.taken)
}

fn cold_reason(build: &Build) -> &str {
    build.cold_reason().unwrap_or_default()
}

/// Returns a host whose machine permits 2 processors and 512 MiB of memory.
fn bounded_host() -> AgentHost {
    let mut host = AgentHost::new("guests.cpu_percent = 400\n");
    host.add("demo", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        let bounds = "cpus-max: 2\nram-maximum: 524288\n";
        tests::write_file(&files.join("manifest"), &(manifest + bounds));
    });
    host.add_toolchain("0.1.0");
    host.start();
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    host
}

/// Checks that requests beyond the bounds of the machine are refused.
fn assert_bounds(host: &AgentHost) {
    let source = host.source(SIZE_PROGRAM);
    let file = host.host.volume.path().join("demo/demo-1/manifest");
    for (options, bound) in [
        (
            ["--cpus=3"],
            "permits 2; request fewer, or raise `cpus-max`",
        ),
        (
            ["--memory=1G"],
            "permits 512; request less, or raise `ram-maximum`",
        ),
        (
            ["--memory=255M"],
            "needs 256; request more, or lower `ram-minimum`",
        ),
    ] {
        let answer = host.machinectl(&[&["build", "demo", &source], &options[..]].concat());
        answer.refused(3, &format!("{bound} in its manifest ({})", file.display()));
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_has_the_processors_and_the_memory_that_its_build_asks_for() {
    let mut host = bounded_host();
    assert_bounds(&host);
    let warm = host.submit_code("demo", &printing_program("warm"));
    let warm = host.wait_for(warm, State::Finished);
    assert_eq!(warm.outcome, Some(Outcome::Success), "{warm:?}");
    assert!(warm.restored && cold_reason(&warm).is_empty(), "{warm:?}");

    let options = ["--cpus=2", "--memory=512M"];
    let id = submit(&host, SIZE_PROGRAM, &options);
    let (cpus, mebibytes) = printed_size(&host, id);
    assert_eq!(cpus, 2);
    // The kernel keeps a part of it.
    assert!((400..=512).contains(&mebibytes), "{mebibytes}");
    assert_eq!(allocated(&host), (2, 512));
    let build = host.build(id);
    assert!(!build.restored, "{build:?}");
    assert!(
        cold_reason(&build).contains("the build asked for"),
        "{build:?}"
    );
    let shown = host.machinectl(&["builds", &id.to_string()]).success();
    assert!(
        shown.stdout.contains("2 processors, 512 MiB of memory"),
        "{shown:?}"
    );
    assert!(
        shown.stdout.contains(", because the checkpoint has"),
        "{shown:?}"
    );

    // The next agent adopts the guest, and counts what it has.
    host.stop(Signal::KILL);
    host.start();
    wait_until("the build is adopted", || allocated(&host) == (2, 512));
    wait_until_ready(&host, "demo", "default", StartKind::Restored);

    assert_eq!(
        submit(&host, SIZE_PROGRAM, &options),
        id,
        "an equal request"
    );
    let own = submit(&host, SIZE_PROGRAM, &[]);
    assert_ne!(own, id, "another size is another build");
    assert_eq!(printed_size(&host, own).0, 1);
    assert!(host.build(own).restored);
    let rebuild = ["rebuild", &id.to_string(), "--memory=300M"];
    let again = host.machinectl(&rebuild).success();
    let again = host.build(again.stdout.trim().parse().unwrap());
    assert_eq!(
        again.resources.to_string(),
        "2 processors, 300 MiB of memory"
    );
    for id in [id, own, again.id.0] {
        host.machinectl(&["cancel", &id.to_string()]).success();
        let canceled = host.wait_for(id, State::Finished);
        assert_eq!(canceled.outcome, Some(Outcome::Abort), "{canceled:?}");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn guests_that_need_one_license_run_one_after_another() {
    let settings = "guests.cpu_percent = 400\nguests.resources = [\"license = 1\"]\n";
    let mut host = AgentHost::new(settings);
    host.add_container("demo", |_| {});
    host.add_container("other", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        let needs = manifest + "resources: license=1\n";
        tests::write_file(&files.join("manifest"), &needs);
    });
    host.add_toolchain("0.1.0");
    host.start();
    for machine in ["demo", "other"] {
        wait_until_ready(&host, machine, "default", StartKind::Cold);
    }

    let source = host.source(GATED_PROGRAM);
    let refused = |count: &str, code: i32, text: &str| {
        let build = ["build", "demo", &source, "--resource", count];
        host.machinectl(&build).refused(code, text);
    };
    refused("modem=1", 10, "guests.resources declares: license=1");
    refused("license=2", 3, "this host has 1");

    let first = submit(&host, GATED_PROGRAM, &["--resource=license=1"]);
    host.wait_for_gate(first);
    let second = host.submit_code("other", GATED_PROGRAM);
    let unlicensed = submit(&host, &printing_program("unlicensed"), &[]);
    let unlicensed = host.wait_for(unlicensed, State::Finished);
    assert_eq!(unlicensed.outcome, Some(Outcome::Success), "{unlicensed:?}");
    let waits = format!(
        "build {second} waits for resource license: 1 wanted, 0 of 1 free; build {first} holds the rest; "
    );
    let explanation = |host: &AgentHost| {
        let explain = ["explain", &second.to_string()];
        host.machinectl(&explain).success().stdout
    };
    wait_until("the build has the reason for its wait", || {
        explanation(&host).starts_with(&waits)
    });
    let shown = host.machinectl(&["host", "status"]).success().stdout;
    assert!(shown.contains("license: 1 of 1 in use\n"), "{shown}");

    // The next agent adopts the first build with its license.
    host.stop(Signal::KILL);
    host.start();
    let license = "license".parse().unwrap();
    let in_use = |host: &AgentHost| queue(host).resources.get(&license).map(|load| load.taken);
    wait_until("the build is adopted", || in_use(&host) == Some(1));
    let again = submit(&host, &printing_program("after the restart"), &[]);
    host.wait_for(again, State::Finished);
    assert!(explanation(&host).starts_with(&waits));
    host.open_gate("demo", first);
    let first = host.wait_for(first, State::Finished);
    host.wait_for_gate(second);
    assert_eq!(in_use(&host), Some(1));
    host.open_gate("other", second);
    let second = host.wait_for(second, State::Finished);
    for build in [&first, &second] {
        assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    }
    assert!(first.finished <= second.started, "{first:?} {second:?}");
    wait_until("no guest has the license", || in_use(&host) == Some(0));
}
