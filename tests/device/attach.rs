//! People who look into copies of what is held of builds that failed.

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

const BAD: &str = "int main(void) { return nonsense; }\n";
/// What the shell of a copy shows where the build worked.
const PROMPT: &str = "/buildhost/build/work #";

/// A host on which build 1 has failed, and is held. Its machine's disk has a journal.
fn host(settings: &str) -> AgentHost {
    let mut host = AgentHost::new(settings);
    host.add("demo", |machine| {
        let mut tune = command::prepare("tune2fs");
        tune.arg("-j").arg(machine.join("disk.img"));
        command::run(tune, Duration::from_mins(1)).unwrap();
    });
    host.add_toolchain("0.1.0");
    host.start();
    let source = host.source(BAD);
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

/// The snapshots that are there.
fn snapshots(host: &AgentHost) -> Vec<String> {
    let view = host.host.volume.view(&"demo".parse().unwrap()).unwrap();
    let tags = view.snapshots.iter().map(|it| it.tag.to_string());
    tags.collect()
}

/// The files of the snapshot that is held, and when each was last changed.
fn content(host: &AgentHost) -> Vec<(PathBuf, u64, i64, i64)> {
    let held = host.host.volume.path().join("demo/demo-default-1");
    let mut files = sys::file::entries(&held).unwrap();
    files.sort();
    let seen = files.into_iter().map(|path| {
        let data = std::fs::metadata(&path).unwrap();
        (path, data.size(), data.ctime(), data.ctime_nsec())
    });
    seen.collect()
}

/// Whether the file system on a disk has something in its journal that it lacks itself.
fn is_unclean(disk: &Path) -> bool {
    // The superblock begins at 1024; this is its list of what one must understand.
    const INCOMPATIBLE: u64 = 1024 + 0x60;
    const RECOVER: u8 = 4;
    let mut features = [0];
    let disk = std::fs::File::open(disk).unwrap();
    disk.read_exact_at(&mut features, INCOMPATIBLE).unwrap();
    features[0] & RECOVER != 0
}

fn attach(host: &AgentHost) -> Terminal {
    let person = host.terminal(&["attach", "1"]);
    person.wait_for(PROMPT);
    person
}

fn torn_down(host: &AgentHost) {
    host.machinectl(&["release", "1"]).success();
    wait_until("nothing is held", || held(host).is_none());
    host.wait_until_torn_down();
    let left = std::fs::read_dir(host.state_directory().join("attached")).map(Iterator::count);
    assert_eq!(left.unwrap(), 0);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn people_look_into_copies_of_a_guest_that_was_woken_and_it_stays_as_it_is() {
    let host = host("");
    assert!(
        host.build(1).restored,
        "the disk of a woken guest is another"
    );
    let disk = host.host.volume.path();
    let disk = disk.join("demo/demo-default-1/frozen.disk");
    assert!(is_unclean(&disk), "the guest was not shut down");
    let (before, suspended) = (content(&host), host.guests());
    let rehearsed = host
        .machinectl(&["attach", "1", "--dry-run"])
        .success()
        .stdout;
    assert_eq!(
        rehearsed,
        "would boot a copy of the held guest of build 1\n"
    );

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
    let kept = host.machinectl(&["builds", "delete", "1"]);
    assert!(
        kept.stderr.contains("build 1 is held for a person"),
        "{kept:?}"
    );
    // The console of a machine is never that of a copy.
    host.machinectl(&["console", "42-a1"])
        .refused(10, "no guest of a machine 42-a1 runs");

    one.type_in("\x1d");
    assert_eq!(one.wait(), Some(0));
    one.wait_for("the copy is deleted");
    other.type_in("exit\r");
    assert_eq!(other.wait(), Some(0));
    wait_until("the copies are gone", || snapshots(&host) == ["1"]);
    wait_until("their guests are gone", || host.guests() == suspended);
    assert_eq!(content(&host), before);
    assert_eq!(held(&host), Some(HoldKind::Guest));
    torn_down(&host);
    host.machinectl(&["attach", "1"])
        .refused(3, "nothing is held of build 1");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_copy_takes_the_place_of_a_guest_and_does_not_outlive_the_agent() {
    let mut host = host("guests.frozen = \"off\"\nguests.parallel_max = 1\n");
    let mut person = attach(&host);
    assert_eq!(held(&host), Some(HoldKind::Snapshot), "its guest gave way");
    person.type_in("cat sources/*/hello.c\r");
    person.wait_for("return nonsense");
    let before = content(&host);
    host.machinectl(&["attach", "1"])
        .refused(3, "it would wait for a guest: 1 of 1 run");
    host.submit("demo", "hello");
    wait_until("the build waits", || {
        host.build(2).message == "for a guest: 1 of 1 run"
    });

    host.stop(Signal::KILL);
    assert_eq!(person.wait(), Some(0));
    host.start();
    let build = host.wait_for(2, State::Finished);
    assert_eq!(build.outcome, Some(Outcome::Success), "{build:?}");
    wait_until("the copy is gone", || snapshots(&host) == ["1"]);
    assert_eq!(host.guests(), []);
    assert_eq!(content(&host), before);

    host.machinectl(&["drain"]).success();
    host.machinectl(&["attach", "1"])
        .refused(3, "it would wait because the host is drained since");
    host.machinectl(&["undrain"]).success();
    let mut person = attach(&host);
    host.stop(Signal::HUP);
    assert_eq!(person.wait(), Some(0));
    assert_eq!(snapshots(&host), ["1"]);
    host.start();
    torn_down(&host);
}
