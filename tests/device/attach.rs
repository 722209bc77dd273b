//! Debug sessions in copies of the held snapshots of failed builds.

use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::sys::command;
use config::builds::{HoldKind, State};
use config::task::Outcome;
use rustix::process::Signal;
use tests::agent::AgentHost;
use tests::terminal::Terminal;
use tests::wait_until;

const BROKEN_PROGRAM: &str = "int main(void) { return nonsense; }\n";
/// The prompt of the shell in a copy, in the directory of the build.
pub(crate) const PROMPT: &str = "/buildhost/build/work #";

/// Starts a host on which build 1 has failed and is held. The disk of its machine has a journal.
fn host_with_hold(settings: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add("demo", |machine| {
        let mut tune = command::prepare("tune2fs");
        tune.arg("-j").arg(machine.join("disk.img"));
        command::run(tune, Duration::from_mins(1)).unwrap();
    });
    host.add_toolchain("0.1.0");
    host.start();
    let source = host.source(BROKEN_PROGRAM);
    host.machinectl(&["build", "demo", &source, "--hold"])
        .success();
    let build = host.wait_for(1, State::Finished);
    assert_eq!((build.outcome, build.attempts), (Some(Outcome::Error), 1));
    assert_eq!(held(&host), Some(HoldKind::Guest), "{build:?}");
    host
}

fn held(host: &AgentHost) -> Option<HoldKind> {
    host.build(1).interactive.held.map(|held| held.kind)
}

/// Returns the tags of all snapshots.
fn snapshots(host: &AgentHost) -> Vec<String> {
    let view = host.host.volume.view(&"demo".parse().unwrap()).unwrap();
    let tags = view.snapshots.iter().map(|it| it.tag.to_string());
    tags.collect()
}

/// Returns the files of the held snapshot with their sizes and the times of their last changes.
fn held_files(host: &AgentHost) -> Vec<(PathBuf, u64, i64, i64)> {
    let held = host.host.volume.path().join("demo/demo-default-1");
    let mut files = sys::file::entries(&held).unwrap();
    files.sort();
    let files = files.into_iter().map(|path| {
        let data = std::fs::metadata(&path).unwrap();
        (path, data.size(), data.ctime(), data.ctime_nsec())
    });
    files.collect()
}

/// Returns true if the journal of an ext file system has to be replayed.
fn needs_journal_recovery(disk: &Path) -> bool {
    // The offset of the incompatible features in the superblock, which starts at 1024.
    const INCOMPATIBLE: u64 = 1024 + 0x60;
    const RECOVER: u8 = 4;
    let mut features = [0];
    let disk = std::fs::File::open(disk).unwrap();
    disk.read_exact_at(&mut features, INCOMPATIBLE).unwrap();
    features[0] & RECOVER != 0
}

fn attach(host: &AgentHost) -> Terminal {
    let terminal = host.terminal(&["attach", "1"]);
    terminal.wait_for(PROMPT);
    terminal
}

fn release_and_wait_until_torn_down(host: &AgentHost) {
    host.machinectl(&["release", "1"]).success();
    wait_until("nothing is held", || held(host).is_none());
    host.wait_until_torn_down();
    let directory = host.state_directory().join("attached");
    wait_until("the files of the copies are deleted", || {
        std::fs::read_dir(&directory).unwrap().count() == 0
    });
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn copies_can_be_changed_while_the_held_snapshot_stays_unchanged() {
    let host = host_with_hold("");
    assert!(
        host.build(1).restored,
        "a restored guest has a separate disk"
    );
    let disk = host.host.volume.path();
    let disk = disk.join("demo/demo-default-1/frozen.disk");
    assert!(needs_journal_recovery(&disk), "the guest was not shut down");
    let (before, suspended) = (held_files(&host), host.guests());
    let plan = host
        .machinectl(&["attach", "1", "--dry-run"])
        .success()
        .stdout;
    assert_eq!(plan, "would boot a copy of the held guest of build 1\n");

    let mut one = attach(&host);
    one.type_in("cat sources/*/hello.c; ls ../sources\r");
    one.wait_for("return nonsense");
    one.wait_for("hello-1.0.tar.gz");
    one.type_in("echo changed >sources/hello-1.0/hello.c; sync; tftp -g -l again -r sources/hello-1.0.tar.gz 169.254.111.222 && cmp again ../sources/hello-1.0.tar.gz && echo the same $((20 + 1))\r");
    one.wait_for("the same 21");
    let mut other = attach(&host);
    other.type_in("cat sources/*/hello.c\r");
    other.wait_for("return nonsense");
    assert_eq!(host.guests().len(), 3);

    let table = host.machinectl(&["builds"]).success().stdout;
    assert!(table.contains("2 debug sessions"), "{table}");
    let top = host.machinectl(&["top", "--once"]).success().stdout;
    assert_eq!(top.matches("attached").count(), 2, "{top}");
    let findings = host.machinectl(&["doctor"]).stdout;
    assert!(!findings.contains("-a1"), "{findings}");
    let answer = host.machinectl(&["builds", "delete", "1"]);
    assert!(
        answer.stderr.contains("build 1 is held for debugging"),
        "{answer:?}"
    );
    // A copy is not reachable by the name of a machine.
    host.machinectl(&["console", "42-a1"])
        .refused(10, "no guest of a machine 42-a1 runs");

    one.type_in("\x1d");
    assert_eq!(one.wait(), Some(0));
    one.wait_for("the copy is deleted");
    other.type_in("exit\r");
    assert_eq!(other.wait(), Some(0));
    wait_until("the copies are deleted", || snapshots(&host) == ["1"]);
    wait_until("the copies' guests have ended", || {
        host.guests() == suspended
    });
    assert_eq!(held_files(&host), before);
    assert_eq!(held(&host), Some(HoldKind::Guest));
    release_and_wait_until_torn_down(&host);
    host.machinectl(&["attach", "1"])
        .refused(3, "nothing is held of build 1");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_copy_uses_a_guest_slot_and_does_not_outlive_the_agent() {
    let mut host = host_with_hold("guests.frozen = \"off\"\nguests.parallel_max = 1\n");
    let mut terminal = attach(&host);
    assert_eq!(
        held(&host),
        Some(HoldKind::Snapshot),
        "the held guest was evicted"
    );
    terminal.type_in("cat sources/*/hello.c\r");
    terminal.wait_for("return nonsense");
    let before = held_files(&host);
    host.machinectl(&["attach", "1"])
        .refused(3, "it would wait for a guest: 1 of 1 run");
    host.submit("demo", "hello");
    wait_until("the build waits", || {
        host.build(2).message == "for a guest: 1 of 1 run"
    });

    host.stop(Signal::KILL);
    assert_eq!(terminal.wait(), Some(0));
    host.start();
    let build = host.wait_for(2, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    wait_until("the copy is deleted", || snapshots(&host) == ["1"]);
    wait_until("no guest runs", || host.guests().is_empty());
    assert_eq!(held_files(&host), before);

    host.machinectl(&["drain"]).success();
    host.machinectl(&["attach", "1"])
        .refused(3, "it would wait because the host is drained since");
    host.machinectl(&["undrain"]).success();
    let mut terminal = attach(&host);
    host.stop(Signal::USR2);
    assert_eq!(terminal.wait(), Some(0));
    assert_eq!(snapshots(&host), ["1"]);
    host.start();
    release_and_wait_until_torn_down(&host);
}
