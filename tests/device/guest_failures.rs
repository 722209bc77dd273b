//! The failures of guests: each leads to the expected outcome within its time limit, and leaves
//! nothing behind. The module `checkpoints` has the failures of restores.

use std::fmt::Display;
use std::fs;

use config::builds::{Build, State};
use config::task::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;

use crate::checkpoints::damage;

/// Returns a worker that runs these commands in a build.
pub(crate) fn worker(build: &str) -> String {
    format!(
        "#!/bin/sh
host=169.254.111.222
cd /tmp
if [ $1 = bootstrap ]; then
    printf ': 1\\nstatus: success\\n' >bootstrap.manifest
    tftp -p -l bootstrap.manifest -r bootstrap.manifest $host
    exit
fi
{build}
"
    )
}

/// Returns the process of the guest with this tag: the number of a build, or a name such as `r1`.
pub(crate) fn guest_process(host: &AgentHost, tag: impl Display) -> Pid {
    let record = host
        .run_directory()
        .join(format!("guests/{tag}/process.json"));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let pid = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
    Pid::from_raw(pid).unwrap()
}

fn check(failure: &str, build: &Build, outcome: Outcome, message: &str) {
    let duration = build
        .finished
        .unwrap()
        .duration_since(build.started.unwrap());
    println!(
        "{failure}: {outcome} after {:.1} s: {}",
        duration.as_secs_f64(),
        build.message
    );
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(outcome), 1),
        "{failure}: {build:?}"
    );
    let found = &build.message;
    assert!(found.contains(message), "{failure}: {found}");
}

/// Starts a host with workers that do not ask for a task, end or wait forever. The limit for the
/// start is in the settings, which take precedence over the machine's manifest; the limit for the
/// total time is in the manifest.
fn host_with_failing_workers() -> AgentHost {
    let mut host = AgentHost::new(
        "guests.parallel_max = 4\nbuilds.retries_max = 0\n\
         guests.limits = [\"other = start 1\", \"d* = start 50\"]\n",
    );
    host.add("demo", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        let limits = "frozen: off\nstart-seconds-max: 2\ntotal-seconds-max: 70\n";
        tests::write_file(&files.join("manifest"), &(manifest + limits));
    });
    host.add_worker(
        "waits",
        &worker("tftp -g -r task.manifest $host; sleep 1000"),
    );
    host.add_worker("hangs", &worker("sleep 1000"));
    host.add_worker("ends", &worker("poweroff -f"));
    host.start();
    let image = |name: &str| host.host.volume.path().join(format!("demo/demo-{name}"));
    wait_until("all are bootstrapped", || {
        ["waits", "hangs", "ends"]
            .iter()
            .all(|name| image(name).exists())
    });
    host
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_failed_guest_leads_to_the_expected_outcome_and_leaves_nothing() {
    let host = host_with_failing_workers();
    let submit = |toolchain: &str| host.submit_to("demo", toolchain, "");
    let (killed, stopped) = (submit("waits"), submit("waits"));
    let (hangs, ends) = (submit("hangs"), submit("ends"));
    for (id, signal) in [(killed, Signal::KILL), (stopped, Signal::STOP)] {
        let build = host.wait_for(id, State::Running);
        assert_eq!(build.state, State::Running, "{build:?}");
        kill_process(guest_process(&host, id), signal).unwrap();
    }
    let finished = |id| host.wait_for(id, State::Finished);
    check(
        "killed",
        &finished(killed),
        Outcome::Abnormal,
        "result: it was killed by signal 9",
    );
    check(
        "exiting at once",
        &finished(ends),
        Outcome::Abnormal,
        "result: it powered off",
    );
    // The guests that still run have their own snapshots.
    damage(&host, "waits", "disk.img", &vec![7; 1 << 20]);
    let build = finished(submit("waits"));
    check(
        "a disk of garbage",
        &build,
        Outcome::Abnormal,
        "result: it ",
    );
    damage(&host, "waits", "vmlinuz", b"");
    let build = finished(submit("waits"));
    check("QEMU does not start", &build, Outcome::Abnormal, "kernel");
    check(
        "hanging at boot",
        &finished(hangs),
        Outcome::Abnormal,
        "did not answer within 50 s",
    );
    check(
        "stopped",
        &finished(stopped),
        Outcome::Abort,
        "took longer than 70 s",
    );
    // The agent may notice that an image is damaged, and replace it.
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_panic_a_reset_and_a_power_off_have_their_own_words_and_the_last_lines_of_the_console() {
    let mut host = AgentHost::new("builds.retries_max = 0\nguests.frozen = \"off\"\n");
    host.add("demo", |files| {
        // Without `panic=-1`, a kernel that has panicked waits forever.
        let path = files.join("manifest");
        let manifest = fs::read_to_string(&path).unwrap();
        tests::write_file(&path, &manifest.replace("panic=-1", ""));
    });
    let last = "echo the last words >/dev/console";
    let panic = format!("{last}; echo c >/proc/sysrq-trigger; sleep 1000");
    host.add_worker("panics", &worker(&panic));
    host.add_worker("resets", &worker(&format!("{last}; reboot -f")));
    host.add_worker("leaves", &worker(&format!("{last}; poweroff -f")));
    host.start();
    let builds = [
        (
            "panics",
            "its kernel panicked",
            "Kernel panic - not syncing",
        ),
        ("resets", "it reset", "the last words"),
        ("leaves", "it powered off", "the last words"),
    ];
    let builds = builds.map(|(name, words, line)| (host.submit_to("demo", name, ""), words, line));
    for (id, words, line) in builds {
        let build = host.wait_for(id, State::Finished);
        let expected = format!("before it had put its result: {words}; its console ends with: ");
        check(words, &build, Outcome::Abnormal, &expected);
        assert!(build.message.contains(line), "{build:?}");
        assert!(build.message.len() < 600, "{build:?}");
    }
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_failed_bootstrap_shows_the_console_wherever_its_machine_is_shown() {
    let mut host = AgentHost::new("bootstrap.retries_max = 0\n");
    host.add_container("demo", |_| {});
    let script = "#!/bin/sh\necho no such tool >/dev/console\npoweroff -f\n";
    host.add_worker("default", script);
    host.start();
    let expected = "it powered off; its console ends with: ";
    wait_until("the bootstrap has failed", || {
        host.machinectl(&["host", "status"])
            .stdout
            .contains(expected)
    });
    for command in [&["list"][..], &["status", "demo"], &["doctor"]] {
        let shown = host.machinectl(command);
        let text = format!("{}{}", shown.stdout, shown.stderr);
        assert!(text.contains("no such tool"), "{command:?}: {text}");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_artifact_that_is_too_large_is_final_and_the_good_ones_are_kept() {
    let mut host = AgentHost::new("builds.artifacts_mib_max = 1\n");
    host.add_container("demo", |_| {});
    let build = "tftp -g -r task.manifest $host
        echo good >good; dd if=/dev/zero of=large bs=1024 count=2000
        tftp -p -l good -r artifacts/good $host
        tftp -p -l large -r artifacts/large $host
        printf ': 1\\nstatus: abnormal\\nmessage: no idea\\n' >result.manifest
        tftp -p -l result.manifest -r result.manifest $host";
    host.add_worker("default", &worker(build));
    host.start();
    let build = host.wait_for(host.submit("demo", ""), State::Finished);
    let reason = "`artifacts/large` is larger than the 1 MiB that the setting \
                  builds.artifacts_mib_max allows";
    check("too large", &build, Outcome::Error, reason);
    let kept: Vec<_> = build.artifacts.iter().map(|it| it.name.as_str()).collect();
    assert!(
        kept.contains(&"good") && !kept.contains(&"large"),
        "{kept:?}"
    );
    host.wait_until_torn_down();
}
