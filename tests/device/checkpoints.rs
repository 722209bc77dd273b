//! Warm starts: builds that restore copies of the checkpoint in an image, and the fallback to a
//! cold start. `BUILDHOST_LONG=1` tries more of the reasons for a fallback.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use config::builds::{Build, ImageState, Readiness, StartKind, State, Status};
use config::task::Outcome;
use tests::agent::AgentHost;
use tests::wait_until;

/// A program that prints random bytes, which must differ between two guests, and the time.
const PRINT_RANDOM: &str = r#"
#include <stdio.h>
#include <time.h>
#include <sys/random.h>
static void print(const char *name, const unsigned char *bytes) {
    printf("%s ", name);
    for (int i = 0; i < 16; i++) printf("%02x", bytes[i]);
    putchar('\n');
}
int main(void) {
    unsigned char bytes[16];
    struct timespec now;
    FILE *file = fopen("/dev/urandom", "r");
    if (!file || fread(bytes, 16, 1, file) != 1) return 1;
    print("urandom", bytes);
    if (getrandom(bytes, 16, 0) != 16) return 1;
    print("getrandom", bytes);
    clock_gettime(CLOCK_REALTIME, &now);
    printf("milliseconds %lld\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
    return 0;
}
"#;

/// The start of a worker that is a shell script. The commands of a build follow.
const WORKER: &str = r"#!/bin/sh
host=169.254.111.222
cd /tmp
put() { printf ': 1\nstatus: success\n' >$1; tftp -p -l $1 -r $1 $host; }
if [ $1 = bootstrap ]; then put bootstrap.manifest; exit; fi
";

/// Commands of a worker that waits for its start message, and hangs if it was restored
/// from a checkpoint: its clock then lags behind the host's.
const SILENT_AFTER_RESTORE: &str = r#"
for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = buildhost.control ] && exec 3<>/dev/${port##*/}
done
before=$(date +%s)
echo ready >&3
until read -r go time random <&3; do sleep 0.1; done
while [ $((${time%.*} - before)) -gt 10 ]; do sleep 1; done
"#;

/// Commands of a worker that fetches its task and puts a result.
const BUILD: &str = "
tftp -g -r task.manifest $host && put result.manifest
";

fn wait_for_success(host: &AgentHost, id: u64) -> Build {
    let build = host.wait_for(id, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    assert_eq!(build.attempts, 1, "{build:?}");
    build
}

/// Returns the agent's status of an image, or `None` if the agent has not observed it yet.
fn readiness(host: &AgentHost, machine: &str, toolchain: &str) -> Option<Readiness> {
    let answer = host.machinectl(&["host", "status", "--json"]);
    let status: Status = serde_json::from_str(&answer.stdout).ok()?;
    let is_it = |r: &Readiness| r.machine.as_str() == machine && r.toolchain.as_str() == toolchain;
    status.machines.into_iter().find(is_it)
}

/// Waits until an image is ready with this kind of start, and nothing changes it any more.
pub(crate) fn wait_until_ready(
    host: &AgentHost,
    machine: &str,
    toolchain: &str,
    start: StartKind,
) -> Readiness {
    let is_settled = |r: &Readiness| {
        r.image == ImageState::Ready && r.start == start && !r.start_message.is_empty()
    };
    let mut found = None;
    wait_until(&format!("{machine} starts {start}"), || {
        found = readiness(host, machine, toolchain).filter(is_settled);
        found.is_some()
    });
    found.unwrap()
}

/// Returns the path of a file of the image of the machine `demo`.
pub(crate) fn image_file(host: &AgentHost, toolchain: &str, name: &str) -> PathBuf {
    let image = format!("demo/demo-{toolchain}");
    host.host.volume.path().join(image).join(name)
}

/// Waits until the checkpoint of an image has an age.
fn wait_for_checkpoint_age(host: &AgentHost, toolchain: &str, age: Duration) {
    let state = image_file(host, toolchain, "frozen.state");
    let taken = fs::metadata(state).unwrap().modified().unwrap();
    wait_until(&format!("the checkpoint is {age:?} old"), || {
        SystemTime::now().duration_since(taken).unwrap() > age
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn restored_guests_draw_different_random_bytes_know_the_time_and_build_as_cold_ones() {
    let mut host = AgentHost::new("");
    host.add("demo", |_| {});
    host.add("other", |files| {
        let manifest = fs::read_to_string(files.join("manifest")).unwrap();
        tests::write_file(&files.join("manifest"), &(manifest + "frozen: off\n"));
    });
    host.add_toolchain("0.1.0");
    host.start();
    let starting = wait_until_ready(&host, "demo", "default", StartKind::Restored);
    assert!(
        starting.start_message.ends_with("MiB of memory on disk"),
        "{}",
        starting.start_message
    );
    let starting = wait_until_ready(&host, "other", "default", StartKind::Cold);
    assert_eq!(
        starting.start_message,
        "the machine's manifest says `frozen: off`"
    );
    wait_for_checkpoint_age(&host, "default", Duration::from_secs(4));
    let ids = ["demo", "demo", "other"].map(|machine| host.submit_code(machine, PRINT_RANDOM));
    let builds = ids.map(|id| wait_for_success(&host, id));
    let starts = builds.clone().map(|build| build.startup().unwrap().0);
    assert_eq!(
        starts,
        [StartKind::Restored, StartKind::Restored, StartKind::Cold]
    );
    let logs = ids.map(|id| host.log_of(id));
    let word = |log: &str, name: &str| {
        let mut words = log.split_whitespace().skip_while(|word| *word != name);
        words.nth(1).unwrap().to_owned()
    };
    for source in ["urandom", "getrandom"] {
        let drawn = logs.clone().map(|log| word(&log, source));
        assert_ne!(drawn[0], drawn[1], "both drew the same from {source}");
    }
    for ((build, log), id) in builds.iter().zip(&logs).zip(ids) {
        assert!(log.contains(&format!("build {id} on ")), "{log}");
        let time: i64 = word(log, "milliseconds").parse().unwrap();
        let span = build.first_contact().unwrap().as_millisecond() - 500
            ..build.finished.unwrap().as_millisecond() + 500;
        assert!(span.contains(&time), "{time} is not in {span:?}");
        assert_eq!(build.artifacts, builds[2].artifacts);
        assert_eq!(build.packages, builds[2].packages);
    }
    let table = host.machinectl(&["builds"]).success().stdout;
    assert_eq!(table.matches(" frozen ").count(), 2, "{table}");
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_build_starts_cold_if_the_restore_fails_and_a_new_checkpoint_is_taken() {
    let host = AgentHost::ready("");
    wait_until_ready(&host, "demo", "default", StartKind::Restored);
    damage(&host, "default", "frozen.state", &vec![7; 100_000]);
    let build = wait_for_success(&host, host.submit("demo", "one"));
    assert!(!build.restored, "{build:?}");
    let renewed = wait_until_ready(&host, "demo", "default", StartKind::Restored);
    assert_eq!(renewed.evictions, 1);
    assert!(wait_for_success(&host, host.submit("demo", "two")).restored);
    let log = host.log();
    assert!(log.contains("cannot restore the checkpoint"), "{log}");
    if !tests::is_long_run() {
        return;
    }
    let key = fs::read_to_string(image_file(&host, "default", "frozen.key")).unwrap();
    damage(
        &host,
        "default",
        "frozen.key",
        key.replace("-smp\n1", "-smp\n2").as_bytes(),
    );
    assert!(!wait_for_success(&host, host.submit("demo", "three")).restored);
    let log = host.log();
    assert!(log.contains("does not fit this host any more"), "{log}");
}

/// Replaces a file of the read-only image of the machine `demo`.
pub(crate) fn damage(host: &AgentHost, toolchain: &str, name: &str, content: &[u8]) {
    let directory = image_file(host, toolchain, "");
    let set = |read_only: &str| {
        let mut set = sys::command::prepare("btrfs");
        set.args(["property", "set", "-ts"]).arg(&directory);
        set.args(["ro", read_only]);
        sys::command::run(set, Duration::from_mins(1)).unwrap();
    };
    set("false");
    sys::file::replace(&directory.join(name), content).unwrap();
    set("true");
}

/// Tests that take minutes; `scripts/test --long` runs them.
mod long {
    use super::*;

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_worker_that_does_not_support_restores_is_started_cold() {
        let mut host = AgentHost::new("guests.wake_seconds_max = 2\n");
        host.add("demo", |_| {});
        let silent = format!("{WORKER}{SILENT_AFTER_RESTORE}{BUILD}");
        host.add_worker("default", &silent);
        host.add_worker("hasty", &format!("{WORKER}{BUILD}"));
        host.start();
        wait_until_ready(&host, "demo", "default", StartKind::Restored);
        let hasty = wait_until_ready(&host, "demo", "hasty", StartKind::Cold);
        assert_eq!(hasty.start_message, "the worker does not wait for its task");
        wait_for_checkpoint_age(&host, "default", Duration::from_secs(15));
        let ids =
            ["default", "hasty"].map(|toolchain| host.submit_to("demo", toolchain, PRINT_RANDOM));
        for id in ids {
            assert!(!wait_for_success(&host, id).restored);
        }
        wait_until("the status counts the failed restore", || {
            let status = readiness(&host, "demo", "default");
            status.is_some_and(|status| status.evictions == 1)
        });
        let log = host.log();
        assert!(log.contains("did not answer within 2 s"), "{log}");
    }
}
