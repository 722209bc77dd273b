//! Other work on a machine while a revision of it arrives, and what people made there.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use ::store::subvolumes::BtrfsBackend;
use ::store::{IngestState, SnapshotSource, SubvolumeBackend};
use config::Revision;
use config::builds::State;
use config::layout::Entry;
use config::task::Outcome;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::{wait_until, write_file};

/// An `upgrade` to revision 2 that has received the first half of its stream.
struct Arrival {
    upgrade: Child,
    stdin: ChildStdin,
    rest: Vec<u8>,
}

impl Arrival {
    fn begin(host: &BuildHost, machine: &str, stream: &[u8]) -> Self {
        let mut command = host.command(&["upgrade", machine]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut upgrade = command.spawn().unwrap();
        let mut stdin = upgrade.stdin.take().unwrap();
        let (half, rest) = stream.split_at(stream.len() / 2);
        stdin.write_all(half).unwrap();
        let arriving = host.volume.path().join(format!("{machine}/{machine}-2"));
        tests::wait_until("the revision arrives", || arriving.exists());
        Self {
            upgrade,
            stdin,
            rest: rest.to_vec(),
        }
    }

    /// Sends the other half and returns the exit code and the messages.
    fn finish(mut self) -> (Option<i32>, String) {
        // The program may have ended.
        let _ = self.stdin.write_all(&self.rest);
        drop(self.stdin);
        let output = self.upgrade.wait_with_output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), messages)
    }
}

/// Returns a build host with revision 1 of `linux`, and the stream of revision 2.
fn host() -> (BuildHost, Vec<u8>) {
    let (host, development) = (BuildHost::new(512), DevelopmentHost::new(512));
    development.image("linux-1", None, &[("disk.img", &vec![1; 300_000])]);
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", &vec![2; 900_000])],
    );
    host.machinectl(&["add", "linux"], &development.send("linux-1", None))
        .success();
    let stream = development.send("linux-2", Some("linux-1"));
    (host, stream)
}

fn current(host: &BuildHost) -> Option<Revision> {
    host.view("linux").current
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_serves_while_a_revision_arrives() {
    let (host, stream) = host();
    let arrival = Arrival::begin(&host, "linux", &stream);
    let (linux, toolchain) = ("linux".parse().unwrap(), "default".parse().unwrap());
    for number in 0..20 {
        let tag = format!("{number}").parse().unwrap();
        let snapshot = host
            .volume
            .snapshot(&linux, &SnapshotSource::Current, &toolchain, &tag)
            .unwrap();
        assert_eq!(snapshot.source_revision().unwrap().revision, Revision(1));
        drop(snapshot);
        host.volume
            .delete_snapshot(&linux, &toolchain, &tag)
            .unwrap();
    }
    host.machinectl(&["pin", "linux", "1"], b"").success();
    host.machinectl(&["unpin", "linux", "1"], b"").success();
    host.machinectl(&["rollback", "linux", "1"], b"").success();
    let status = host.machinectl(&["status", "linux"], b"").success().stdout;
    assert!(status.contains("arriving"), "{status}");

    let (code, messages) = arrival.finish();
    assert_eq!(
        (code, current(&host)),
        (Some(0), Some(Revision(2))),
        "{messages}"
    );
    let view = host.view("linux");
    assert_eq!((view.ingest, view.arriving.len()), (IngestState::Idle, 0));
    assert!(view.unmanaged.is_empty(), "{view:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn builds_succeed_while_a_revision_arrives() {
    let builds = if tests::is_long_run() { 20 } else { 1 };
    let host = AgentHost::ready("");
    let demo = host.host.volume.path().join("demo");
    let next = host.host.mount.path().join("demo-2");
    BtrfsBackend
        .snapshot_read_only(&demo.join("demo-1"), &next)
        .unwrap();
    let mut send = ::sys::command::prepare("btrfs");
    send.args(["--quiet", "send"]).arg(&next);
    let stream = ::sys::command::run(send, Duration::from_mins(1)).unwrap();
    let arrival = Arrival::begin(&host.host, "demo", &stream);
    for number in 0..builds {
        let id = host.submit("demo", &format!("number {number}"));
        let build = host.wait_for(id, State::Finished);
        let result = (build.outcome, build.revision);
        let expected = (Some(Outcome::Success), Some(Revision(1)));
        assert_eq!(result, expected, "{build:?}");
    }
    let (code, messages) = arrival.finish();
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!(host.host.view("demo").current, Some(Revision(2)));
}

/// A push of a revision of `demo` over a line that passes at most 1 MB/s.
struct SlowPush {
    push: Child,
    /// The line is slow as long as this file exists.
    brake: PathBuf,
    _development: BuildHost,
    _directory: TempDir,
}

impl SlowPush {
    /// The size of the image: it does not arrive over the slow line before the test ends.
    const BYTES: usize = 400 << 20;

    /// Starts a push to a host that has the machine, and waits until the revision arrives.
    fn begin(remote: &BuildHost) -> Self {
        let development = BuildHost::new(1024);
        let work = development.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        BtrfsBackend
            .write(&work.join("disk.img"), &vec![0; Self::BYTES])
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (ssh, brake) = (directory.path().join("ssh"), directory.path().join("brake"));
        let script = "#!/bin/sh
            while [ \"$1\" != -- ]; do shift; done
            perl -e 'while (sysread STDIN, $bytes, 100_000) {
                syswrite STDOUT, $bytes;
                select undef, undef, undef, 0.1 if -e $ARGV[0];
            }' \"${0%ssh}brake\" | sh -c \"$3\"\n";
        write_file(&ssh, script);
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        write_file(&brake, "");
        let mut push = development.command(&["push", "demo", "remote", "--from"]);
        push.arg(work)
            .arg("--remote-volume")
            .arg(remote.volume.path());
        push.arg("--remote-program")
            .arg(tests::program("machinectl"));
        push.env("BUILDHOST_SSH", &ssh).stderr(Stdio::piped());
        let push = push.spawn().unwrap();
        let arriving = remote.volume.path().join("demo/demo-2");
        wait_until("the revision arrives", || arriving.exists());
        Self {
            push,
            brake,
            _development: development,
            _directory: directory,
        }
    }

    /// Lets the rest pass at once, and returns the exit code and the messages. Fails if the push
    /// has ended before.
    fn finish(mut self) -> (Option<i32>, String) {
        assert_eq!(self.push.try_wait().unwrap(), None, "the line was slow");
        fs::remove_file(&self.brake).unwrap();
        let output = self.push.wait_with_output().unwrap();
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), messages)
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_serves_while_a_push_arrives_over_a_slow_line() {
    let builds = if tests::is_long_run() { 20 } else { 3 };
    let host = AgentHost::ready_with_container("");
    let push = SlowPush::begin(&host.host);
    let submit = |number| host.submit("demo", &format!("number {number}"));
    let ids: Vec<_> = (0..builds).map(submit).collect();
    for id in ids {
        let build = host.wait_for(id, State::Finished);
        let result = (build.outcome, build.revision);
        let expected = (Some(Outcome::Success), Some(Revision(1)));
        assert_eq!(result, expected, "{build:?}");
        assert_eq!(build.attempts, 1, "{build:?}");
    }
    for change in [
        ["pin", "demo", "1"],
        ["rollback", "demo", "1"],
        ["unpin", "demo", "1"],
    ] {
        host.machinectl(&change).success();
    }
    let impatient = host
        .host
        .volume
        .clone()
        .with_lock_timeout(Duration::from_secs(1));
    let demo = "demo".parse().unwrap();
    let refusal = impatient.delete(&demo, Duration::ZERO, true).unwrap_err();
    let names_creator = refusal
        .to_string()
        .contains("created by machinectl (process");
    assert!(names_creator, "{refusal}");
    let (code, messages) = push.finish();
    assert_eq!(code, Some(0), "{messages}");
    assert_eq!(host.host.view("demo").current, Some(Revision(2)));
    host.machinectl(&["verify", "demo"]).success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_an_arrival_needs_is_neither_deleted_nor_created_twice() {
    let (host, stream) = host();
    let arrival = Arrival::begin(&host, "linux", &stream);
    let linux = "linux".parse().unwrap();
    let impatient = host.volume.clone().with_lock_timeout(Duration::ZERO);
    let refusal = impatient.delete(&linux, Duration::ZERO, true).unwrap_err();
    let text = refusal.to_string();
    let names_creators = text.contains("being created by machinectl (process");
    assert!(names_creators, "{text}");
    assert_eq!(current(&host), Some(Revision(1)));
    host.machinectl(&["upgrade", "linux"], &stream).refused(
        18,
        "a revision of machine `linux` is being created by machinectl",
    );

    // Neither the clean-up after a boot nor the doctor takes it for a leftover.
    assert!(host.volume.clean_after_boot().done.is_empty());
    let repaired = host.machinectl(&["doctor", "--repair"], b"");
    assert!(
        host.volume.path().join("linux/linux-2").exists(),
        "{repaired:?}"
    );
    // The stream may still refer to its parent.
    let parent = host.volume.entry(&linux, &Entry::Revision(Revision(1)));
    let in_use = host.view("linux").revisions_in_use;
    assert!(in_use.contains(&Revision(1)), "{in_use:?}");

    let (code, messages) = arrival.finish();
    assert_eq!(code, Some(0), "{messages}");
    assert!(parent.exists());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_deletion_waits_for_an_arrival() {
    let (host, stream) = host();
    let arrival = Arrival::begin(&host, "linux", &stream);
    let volume = host.volume.clone();
    let deletion = std::thread::spawn(move || {
        volume.delete(&"linux".parse().unwrap(), Duration::from_mins(1), false)
    });
    let (code, messages) = arrival.finish();
    assert_eq!(code, Some(0), "{messages}");
    deletion.join().unwrap().unwrap();
    assert!(host.listing().is_empty(), "{:?}", host.listing());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_killed_arrival_can_be_repeated_and_repaired() {
    let (host, stream) = host();
    let kill = || {
        let mut arrival = Arrival::begin(&host, "linux", &stream);
        arrival.upgrade.kill().unwrap();
        arrival.upgrade.wait().unwrap();
        drop(arrival.stdin);
        tests::wait_until("the receiver has ended", || {
            host.view("linux").ingest == IngestState::Interrupted
        });
    };
    kill();
    let answer = host.machinectl(&["upgrade", "linux"], &stream).success();
    let messages = answer.stderr;
    assert!(
        messages.contains("replaces an incomplete revision"),
        "{messages}"
    );
    assert_eq!(host.view("linux").ingest, IngestState::Idle);

    host.machinectl(&["rollback", "linux", "1"], b"").success();
    BtrfsBackend
        .delete(&host.volume.path().join("linux/linux-2"))
        .unwrap();
    // Its note goes with the next clean-up.
    host.volume.clean_after_boot();
    let before = host.listing();
    kill();
    let cleaned = host.volume.clean_after_boot();
    assert!(cleaned.failed.is_empty(), "{cleaned:?}");
    assert_eq!(host.listing(), before);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_a_person_works_in_stays() {
    let (host, stream) = host();
    let linux = host.volume.path().join("linux");
    let work = linux.join("linux-2");
    BtrfsBackend
        .snapshot(&linux.join("linux-1"), &work)
        .unwrap();
    tests::write_file(&work.join("notes"), "hours of work");
    host.machinectl(&["upgrade", "linux"], &stream)
        .refused(11, "a person may be working in it");
    let repaired = host.machinectl(&["doctor", "--repair"], b"");
    assert_eq!(repaired.code, Some(21), "{repaired:?}");
    assert!(
        repaired.stdout.contains("btrfs property set"),
        "{repaired:?}"
    );
    assert!(host.volume.clean_after_boot().done.is_empty());
    // Without its link the machine is deleted by the next boot, but not a person's work.
    fs::remove_file(linux.join("linux")).unwrap();
    assert!(host.volume.clean_after_boot().failed.is_empty());
    assert!(work.join("notes").is_file() && !linux.join("linux-1").exists());
    // Only who asks for it by name deletes everything.
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(host.listing().is_empty(), "{:?}", host.listing());
}
