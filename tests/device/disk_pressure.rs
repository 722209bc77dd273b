//! Guests that fill the host's disk, in containers on a small volume, and a full state directory.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use ::sys::command;
use config::builds::State;
use config::task::Outcome;
use tests::agent::{AgentHost, GATED_PROGRAM};
use tests::attacks::refused;
use tests::wait_until;

/// A program that writes forever, also after the disk has filled.
const GREEDY: &str = "#include <stdio.h>
#include <unistd.h>
int main(void) {
    static char much[1 << 20];
    FILE *file = fopen(\"/much\", \"w\");
    for (unsigned n = 0;; n++) {
        much[n % sizeof much] = n;
        if (fwrite(much, sizeof much, 1, file) == 0) clearerr(file);
        usleep(10000);
    }
}
";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_build_that_fills_the_volume_is_evicted_and_the_others_continue() {
    let mut host = AgentHost::with_volume(1024, "builds.retries_max = 1\n");
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let first = host.submit("demo", "before");
    assert_eq!(
        host.wait_for(first, State::Finished).outcome,
        Some(Outcome::Success)
    );
    let greedy = host.submit_code("demo", GREEDY);
    host.wait_for(greedy, State::Running);
    let other = host.submit_code("demo", GATED_PROGRAM);
    host.wait_for_gate(other);
    // The wait reason of the next attempt may have replaced the message of the build.
    wait_until("the build is evicted", || {
        host.log()
            .contains("evicting a guest: a disk is nearly full")
    });
    host.open_gate("demo", other);
    let build = host.wait_for(other, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    let build = host.wait_for(greedy, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    let reason = "the build filled the disk of ";
    assert!(build.message.starts_with(reason), "{}", build.message);
    let last = host.submit("demo", "after");
    let build = host.wait_for(last, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    host.wait_until_torn_down();
}

/// A program that fills the disk and fails.
const FILLER: &str = "#include <stdio.h>
int main(void) {
    static char much[1 << 20];
    FILE *file = fopen(\"/much\", \"w\");
    for (unsigned n = 0; n < 1900; n++) {
        much[n] = n;
        if (fwrite(much, sizeof much, 1, file) == 0) break;
    }
    fclose(file);
    return 1;
}
";

/// A program that writes 20 MiB and waits at the gate.
const QUIET: &str = "#include <stdio.h>
#include <unistd.h>
int main(void) {
    static char little[20 << 20] = {1};
    FILE *file = fopen(\"/little\", \"w\");
    fwrite(little, sizeof little, 1, file);
    fclose(file);
    puts(\"waiting at the gate\");
    fflush(stdout);
    while (access(\"/gate\", F_OK)) usleep(10000);
    return 0;
}
";

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_quiet_guest_survives_others_that_fill_the_volume_and_end_by_themselves() {
    let mut host = AgentHost::with_volume(2048, "builds.retries_max = 1\n");
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let quiet = host.submit_code("demo", QUIET);
    host.wait_for_gate(quiet);
    for _ in 0..3 {
        let filler = host.submit_code("demo", FILLER);
        let build = host.wait_for(filler, State::Finished);
        assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    }
    // It starts only when the volume has its reserve again.
    let after = host.submit("demo", "after");
    let build = host.wait_for(after, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    host.open_gate("demo", quiet);
    let build = host.wait_for(quiet, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Success), 1));
    let of_quiet = format!(
        "evicting a guest: a disk is nearly full path={} job=build {quiet} ",
        host.host.volume.path().display()
    );
    assert!(!host.log().contains(&of_quiet), "{}", host.log());
    host.wait_until_torn_down();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_outcome_that_cannot_be_stored_is_stored_when_there_is_space_again() {
    let mut host = AgentHost::new("paths.reserve_mib = 1\nbuilds.retries_max = 0\n");
    let state = host.state_directory();
    fs::create_dir(&state).unwrap();
    let mut mount = command::prepare("mount");
    mount.args(["-t", "tmpfs", "-o", "size=24m,mode=700", "state"]);
    mount.arg(&state);
    command::run(mount, Duration::from_mins(1)).unwrap();
    host.add_container("demo", |_| {});
    host.add_toolchain("0.1.0");
    host.start();
    let id = host.submit_code("demo", GATED_PROGRAM);
    host.wait_for_gate(id);
    let ballast = state.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[7; 512]).is_ok() {}
    host.machinectl(&["cancel", &id.to_string()]);
    wait_until("the build waits for space", || {
        host.build(id).state == State::Storing
    });
    let explained = host.machinectl(&["explain", &id.to_string()]).success();
    let expected = format!("build {id} waits until its outcome can be stored: ");
    assert!(
        explained.stdout.starts_with(&expected),
        "{}",
        explained.stdout
    );
    let expected = format!("build {id} has ended, and its outcome cannot be stored: ");
    wait_until("a notice says so", || {
        let status = host.machinectl(&["host", "status"]);
        format!("{}{}", status.stdout, status.stderr).contains(&expected)
    });
    host.wait_until_torn_down();
    drop(file);
    fs::remove_file(&ballast).unwrap();
    let freed = Instant::now();
    let build = host.wait_for(id, State::Finished);
    println!(
        "stored {:.1} s after there was space",
        freed.elapsed().as_secs_f64()
    );
    // The agent evicts the guest that is left while the disk is full.
    let ended = [Some(Outcome::Abort), Some(Outcome::Abnormal)];
    assert!(ended.contains(&build.outcome), "{build:?}");
    refused(
        "full disk -> records",
        "lose the outcome of a build",
        &explained.stdout,
    );
    let status = host.machinectl(&["host", "status"]);
    assert!(!status.stdout.contains(&expected), "{}", status.stdout);
}
