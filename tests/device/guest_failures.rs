//! Every way in which a guest can fail its build: each ends in its outcome, within its
//! limit, and leaves nothing. A frozen guest that cannot be woken: see `frozen`.

use std::fs;

use config::builds::{Build, State};
use config::task::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::AgentHost;
use tests::wait_until;

use crate::checkpoints::spoil;

/// A worker that does this when it is to build.
fn worker(build: &str) -> String {
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

/// The process of a build's guest.
pub(crate) fn guest(host: &AgentHost, id: u64) -> Pid {
    let record = host
        .run_directory()
        .join(format!("guests/{id}/process.json"));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    let pid = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
    Pid::from_raw(pid).unwrap()
}

fn tell(what: &str, build: &Build, outcome: Outcome, words: &str) {
    let took = build
        .finished
        .unwrap()
        .duration_since(build.started.unwrap());
    println!(
        "{what}: {outcome} after {:.1} s: {}",
        took.as_secs_f64(),
        build.message
    );
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(outcome), 1),
        "{what}: {build:?}"
    );
    assert!(build.message.contains(words), "{what}: {}", build.message);
}

/// A host with short limits, of which the operator says one and the machine another,
/// and workers that are silent, end or wait for ever.
fn ready() -> AgentHost {
    let mut host = AgentHost::new(
        "guests.parallel_max = 4\nbuilds.retries_max = 0\n\
         guests.limits = [\"other = start 1\", \"d* = start 30\"]\n",
    );
    host.add("demo", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        let words = "frozen: off\nstart-seconds-max: 2\ntotal-seconds-max: 40\n";
        tests::write_file(&files.join("manifest"), &(manifest + words));
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
fn a_guest_that_fails_ends_its_build_in_its_way_and_leaves_nothing() {
    let host = ready();
    let submit = |toolchain: &str| host.submit_to("demo", toolchain, "");
    let (killed, stopped) = (submit("waits"), submit("waits"));
    let (hangs, ends) = (submit("hangs"), submit("ends"));
    for (id, signal) in [(killed, Signal::KILL), (stopped, Signal::STOP)] {
        let build = host.wait_for(id, State::Running);
        assert_eq!(build.state, State::Running, "{build:?}");
        kill_process(guest(&host, id), signal).unwrap();
    }
    let over = |id| host.wait_for(id, State::Finished);
    tell(
        "killed",
        &over(killed),
        Outcome::Abnormal,
        "result (by signal 9)",
    );
    tell(
        "exiting at once",
        &over(ends),
        Outcome::Abnormal,
        "result (with status 0)",
    );
    // The others have snapshots of their own, and time.
    spoil(&host, "waits", "disk.img", &vec![7; 1 << 20]);
    let build = over(submit("waits"));
    tell(
        "a disk of garbage",
        &build,
        Outcome::Abnormal,
        "(with status 0)",
    );
    spoil(&host, "waits", "vmlinuz", b"");
    let build = over(submit("waits"));
    tell("QEMU that refuses", &build, Outcome::Abnormal, "kernel");
    tell(
        "hanging at boot",
        &over(hangs),
        Outcome::Abnormal,
        "did not answer within 30 s",
    );
    tell(
        "stopped",
        &over(stopped),
        Outcome::Abort,
        "took longer than 40 s",
    );
    // The agent may have seen an image that is spoiled, and have made it anew.
    wait_until("all is torn down", || {
        host.networks().is_empty() && host.host.look("demo").snapshots.is_empty()
    });
    host.wait_until_torn_down();
}
