//! `machinectl push`, `pull` and `verify` between real volumes over a real sshd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use tests::agent::AgentHost;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::ssh::SshServer;
use tests::{wait_until, write_file};

/// A development host with a working subvolume, and a build host behind ssh.
struct Fixture {
    development: BuildHost,
    remote: BuildHost,
    server: SshServer,
}

impl Fixture {
    fn new() -> Self {
        let (development, remote) = (BuildHost::new(512), BuildHost::new(256));
        let work = development.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        write_file(&work.join("manifest"), ": 1\nid: linux\nsummary: Linux\n");
        BtrfsBackend
            .write(&work.join("disk.img"), &vec![7; 3 << 20])
            .unwrap();
        Self {
            development,
            remote,
            server: SshServer::start(),
        }
    }

    /// Returns the path of a file of the working subvolume.
    fn work(&self, name: &str) -> std::path::PathBuf {
        self.development.mount.path().join("work").join(name)
    }

    /// Runs `machinectl` on the development host, with the build host as its remote host.
    fn machinectl(&self, arguments: &[&str]) -> CommandOutput {
        self.run(self.development.command(arguments))
    }

    fn run(&self, mut command: Command) -> CommandOutput {
        command
            .arg("--remote-volume")
            .arg(self.remote.volume.path());
        command
            .arg("--remote-program")
            .arg(tests::program("machinectl"));
        command.env("BUILDHOST_SSH", self.server.ssh());
        command.env("SUDO_USER", "alice");
        run(command, b"")
    }

    /// Writes a program that stands for ssh, and returns its path.
    fn ssh_script(&self, commands: &str) -> String {
        let path = self.development.mount.path().join("ssh");
        write_file(&path, &format!("#!/bin/sh\n{commands}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Fills the disk of the working subvolume with bytes that cannot be compressed.
    fn fill_disk(&self, seed: u64) {
        let bytes = tests::random::Xorshift::new(seed).bytes(9 << 20);
        BtrfsBackend.write(&self.work("disk.img"), &bytes).unwrap();
    }

    /// Pushes the working subvolume.
    fn push(&self, options: &[&str]) -> CommandOutput {
        let work = self.work("");
        let work = work.to_str().unwrap();
        let push = ["push", "linux", "root@127.0.0.1", "--from", work];
        self.machinectl(&[&push, options].concat())
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_working_subvolume_is_pushed_in_full_and_then_incrementally() {
    let fixture = Fixture::new();
    let first = fixture.push(&[]).success();
    assert!(first.stderr.contains("revision 1 in full"), "{first:?}");
    write_file(&fixture.work("more"), "more");
    let second = fixture.push(&[]).success();
    assert!(
        second
            .stderr
            .contains("revision 2 as the difference from revision 1"),
        "{second:?}"
    );
    let view = fixture.remote.view("linux");
    assert_eq!(view.current.map(|it| it.0), Some(2));
    let more = fixture.remote.volume.path().join("linux/linux/more");
    assert_eq!(fs::read_to_string(more).unwrap(), "more");
    let push = ["push", "linux", "root@127.0.0.1"];
    let repeated = fixture.machinectl(&push).success();
    assert!(
        repeated
            .stderr
            .contains("already current on root@127.0.0.1"),
        "{repeated:?}"
    );
    let verified = fixture
        .remote
        .machinectl(&["verify", "linux"], b"")
        .success();
    assert!(
        verified.stderr.contains("verified 4 files, 3 MiB"),
        "{verified:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_is_pulled_in_full_and_then_incrementally() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    let third = BuildHost::new(256);
    let pull = |options: &[&str]| {
        let pull = ["pull", "linux", "root@127.0.0.1"];
        fixture.run(third.command(&[&pull, options].concat()))
    };
    assert_eq!(
        pull(&["--dry-run"]).success().stdout,
        "would fetch revision 1 of linux from root@127.0.0.1, about 3 MiB\n"
    );
    assert!(
        pull(&[])
            .success()
            .stderr
            .contains("fetching revision 1 in full")
    );
    write_file(&fixture.work("more"), "more");
    fixture.push(&[]).success();
    assert!(
        pull(&[])
            .success()
            .stderr
            .contains("fetching revision 2 incrementally")
    );
    assert!(
        pull(&[])
            .success()
            .stderr
            .contains("revision 2 is current here, 2 on root@127.0.0.1")
    );
    third.machinectl(&["verify", "linux", "2"], b"").success();
    third
        .machinectl(&["pull", "other", "nowhere.invalid"], b"")
        .refused(24, "nowhere.invalid");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn changes_of_a_received_revision_are_detected_and_it_is_not_used_as_a_parent() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    // The ioctl makes a received revision writable, which btrfs does not record.
    let received = fixture.remote.volume.path().join("linux/linux-1");
    libbtrfsutil::set_subvolume_read_only(&received, false).unwrap();
    write_file(&received.join("manifest"), ": 1\nid: evil\n");
    write_file(&received.join("stray"), "stray");
    libbtrfsutil::set_subvolume_read_only(&received, true).unwrap();
    fixture
        .remote
        .machinectl(&["verify", "linux"], b"")
        .refused(23, "`manifest` has another content, `stray` was added");

    write_file(&fixture.work("more"), "more");
    fixture.push(&["-q"]).refused(23, "send it in full");
    let view = fixture.remote.view("linux");
    assert_eq!(
        (view.current.map(|it| it.0), view.revisions.len()),
        (Some(1), 1)
    );
    // The remedy is a full stream, which needs no parent.
    let push = ["push", "linux", "root@127.0.0.1", "--full"];
    let full = fixture.machinectl(&push).success();
    assert!(full.stderr.contains("revision 2 in full"), "{full:?}");
    fixture
        .remote
        .machinectl(&["verify", "linux"], b"")
        .success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_exit_code_of_the_remote_host_is_returned() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    let other = fixture.remote.mount.path().join("other");
    BtrfsBackend.create(&other).unwrap();
    let other = other.to_str().unwrap();
    fixture
        .remote
        .machinectl(&["upgrade", "linux", "--from", other], b"")
        .success();
    let push = ["push", "linux", "root@127.0.0.1", "-q"];
    fixture
        .machinectl(&push)
        .refused(12, "revision 1 is not newer than revision 2");
    let status = fixture
        .development
        .machinectl(&["status", "linux"], b"")
        .success()
        .stdout;
    assert!(status.contains("linux: in service"), "{status}");
    fixture
        .development
        .machinectl(&["verify", "linux", "9"], b"")
        .refused(10, "no complete revision 9");
}

/// Makes a read-only subvolume writable, changes it, and makes it read-only again, as people do.
fn amend(subvolume: &std::path::Path) {
    libbtrfsutil::set_subvolume_read_only(subvolume, false).unwrap();
    write_file(
        &subvolume.join("manifest"),
        ": 1\nid: amended\nsummary: Linux\n",
    );
    libbtrfsutil::set_subvolume_read_only(subvolume, true).unwrap();
}

/// Checks that the current revisions of `linux` on two hosts have the same files.
fn assert_same_content(one: &BuildHost, other: &BuildHost) {
    let content = |host: &BuildHost| {
        let current = host.volume.path().join("linux/linux");
        tests::hosts::listing(&current.canonicalize().unwrap())
    };
    assert_eq!(content(one), content(other));
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_parent_that_its_sender_has_changed_is_not_built_upon() {
    for with_manifest in [false, true] {
        let fixture = Fixture::new();
        let home = fixture.development.volume.path().join("linux");
        let work = fixture.work("");
        let work = work.to_str().unwrap();
        let push = ["push", "linux", "root@127.0.0.1"];
        if with_manifest {
            fixture.push(&[]).success();
        } else {
            let add = ["add", "linux", "--from", work];
            fixture.development.machinectl(&add, b"").success();
            fixture.machinectl(&push).success();
        }
        amend(&home.join("linux-1"));
        // What is current on both hosts has the same number and other content.
        fixture.machinectl(&push).refused(11, "has other content");

        let next = fixture.development.mount.path().join("next");
        BtrfsBackend.snapshot(&home.join("linux-1"), &next).unwrap();
        // A stream made by hand is refused, also if the stale manifest of its parent comes along.
        let by_hand = fixture.development.mount.path().join("linux-2");
        BtrfsBackend.snapshot_read_only(&next, &by_hand).unwrap();
        let mut send = ::sys::command::prepare("btrfs");
        send.args(["--quiet", "send", "-p"])
            .arg(home.join("linux-1"))
            .arg(&by_hand);
        let stream = ::sys::command::run(send, std::time::Duration::from_mins(1)).unwrap();
        fixture
            .remote
            .machinectl(&["upgrade", "linux"], &stream)
            .refused(15, "may have other content at its sender");

        let from = next.to_str().unwrap();
        let pushed = fixture
            .machinectl(&[&push[..], &["--from", from]].concat())
            .success();
        let reason = "in full, because revision 1 there may differ from revision 1 here";
        assert!(pushed.stderr.contains(reason), "{pushed:?}");
        assert_same_content(&fixture.development, &fixture.remote);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_is_not_adopted_on_its_uuid_alone() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    let remote = fixture.remote.volume.path().join("linux");
    // An interrupted upgrade left the complete revision without its link.
    fs::remove_file(remote.join("linux")).unwrap();
    amend(&fixture.development.volume.path().join("linux/linux-1"));
    let push = ["push", "linux", "root@127.0.0.1", "--full"];
    fixture.machinectl(&push).refused(11, "has other content");
    let sent = fixture
        .development
        .command(&["send", "linux"])
        .output()
        .unwrap();
    fixture
        .remote
        .machinectl(&["add", "linux"], &sent.stdout)
        .refused(11, "exists with other content, or was relayed or changed");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_second_development_host_continues_the_numbers_of_the_build_host() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    write_file(&fixture.work("more"), "more");
    fixture.push(&[]).success();
    let second = Fixture {
        remote: fixture.remote,
        ..Fixture::new()
    };
    let pushed = second.push(&[]).success();
    assert!(
        pushed.stderr.contains("revision 3 is now current on"),
        "{pushed:?}"
    );
    assert!(
        pushed
            .stderr
            .contains("revision 2 on root@127.0.0.1 is not here"),
        "{pushed:?}"
    );
    assert_same_content(&second.development, &second.remote);

    // The first host makes its own revision 3.
    let first = Fixture {
        remote: second.remote,
        development: fixture.development,
        server: fixture.server,
    };
    let work = first.work("");
    let upgrade = ["upgrade", "linux", "--from", work.to_str().unwrap()];
    first.development.machinectl(&upgrade, b"").success();
    for verb in ["push", "pull"] {
        first
            .machinectl(&[verb, "linux", "root@127.0.0.1"])
            .refused(
                11,
                "revision 3 of linux has other content on root@127.0.0.1 than here",
            );
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_source_that_cannot_be_sent_whole_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    // systemd creates such subvolumes in containers.
    BtrfsBackend.create(&fixture.work("machines")).unwrap();
    fixture.push(&[]).refused(
        3,
        "contains the subvolumes `machines`, which a snapshot leaves out",
    );
    let work = fixture.work("");
    let add = ["add", "linux", "--from", work.to_str().unwrap()];
    fixture
        .development
        .machinectl(&add, b"")
        .refused(3, "contains the subvolumes");
    let import = ["import", "linux", work.to_str().unwrap()];
    write_file(&fixture.work("machines").join("inner"), "content");
    fixture.development.machinectl(&import, b"").success();
    let imported = fixture
        .development
        .volume
        .path()
        .join("linux/linux/machines/inner");
    assert_eq!(fs::read_to_string(imported).unwrap(), "content");

    let elsewhere = fixture.remote.mount.path().join("image");
    BtrfsBackend.create(&elsewhere).unwrap();
    for (from, code, text) in [
        (
            elsewhere.to_str().unwrap(),
            3,
            "is not on the file system of the volume",
        ),
        ("/etc", 3, "is not a subvolume"),
        ("/nowhere", 10, "there is no `/nowhere`"),
    ] {
        fixture
            .machinectl(&["push", "linux", "root@127.0.0.1", "--from", from])
            .refused(code, text);
    }
    let view = fixture.development.view("linux");
    assert_eq!(view.revisions.len(), 1, "nothing was created: {view:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_push_over_a_connection_that_breaks_continues_behind_what_has_arrived() {
    let fixture = Fixture::new();
    fixture.fill_disk(5);
    let ssh = format!("head -c 4000000 | {} \"$@\"", fixture.server.ssh());
    let ssh = fixture.ssh_script(&ssh);
    let ssh = ["--ssh", &ssh];
    let is_cut = |output: CommandOutput| {
        let named = output.stderr.contains("the stream ends too early");
        assert!(output.code == Some(14) && named, "{output:?}");
    };
    is_cut(fixture.push(&ssh));
    let push = ["push", "linux", "root@127.0.0.1"];
    is_cut(fixture.machinectl(&[&push[..], &ssh].concat()));
    let last = fixture.machinectl(&push).success().stderr;
    let continued = "7 MiB of revision 1 have arrived before";
    assert!(last.contains(continued), "{last}");
    let verify = ["verify", "linux"];
    fixture.remote.machinectl(&verify, b"").success();
    fixture.push(&[]).success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_pull_over_a_connection_that_breaks_continues_behind_what_has_arrived() {
    let fixture = Fixture::new();
    fixture.fill_disk(6);
    fixture.push(&[]).success();
    let third = BuildHost::new(256);
    let ssh = format!(
        "{} \"$@\" | stdbuf -o0 head -c 4000000",
        fixture.server.ssh()
    );
    let ssh = fixture.ssh_script(&ssh);
    let pull = ["pull", "linux", "root@127.0.0.1"];
    for arrived in [
        "in full from root@127.0.0.1\n",
        "; 3 MiB have arrived before",
    ] {
        let cut = fixture.run(third.command(&[&pull[..], &["--ssh", &ssh]].concat()));
        let named = cut.stderr.contains("the stream ends too early");
        assert!(cut.code == Some(14) && named, "{cut:?}");
        assert!(cut.stderr.contains(arrived), "{cut:?}");
    }
    let last = fixture.run(third.command(&pull)).success().stderr;
    assert!(last.contains("; 7 MiB have arrived before"), "{last}");
    third.machinectl(&["verify", "linux"], b"").success();
    assert_same_content(&third, &fixture.remote);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_is_fetched_from_the_next_host_when_one_fails_in_the_middle() {
    let fixture = Fixture::new();
    fixture.fill_disk(7);
    fixture.push(&[]).success();
    let (near, old, here) = (
        BuildHost::new(256),
        BuildHost::new(256),
        BuildHost::new(256),
    );
    for host in [&near, &old] {
        fixture
            .run(host.command(&["pull", "linux", "root@127.0.0.1"]))
            .success();
    }
    fixture.fill_disk(8);
    fixture.push(&[]).success();
    fixture
        .run(near.command(&["pull", "linux", "root@127.0.0.1"]))
        .success();
    // The names of hosts select volumes behind one sshd. The nearest host breaks down.
    let volume = |host: &BuildHost| host.volume.path().display().to_string();
    let ssh = format!(
        "for line; do :; done; filter=cat
        case \"$*\" in
            *' -- nowhere '*) exec {ssh} nowhere.invalid ;;
            *' -- near '*) volume={near}; filter='stdbuf -o0 head -c 4000000' ;;
            *' -- old '*) volume={old} ;;
            *' -- far '*) volume={far} ;;
        esac
        {ssh} root@127.0.0.1 \"BUILDHOST_VOLUME=$volume $line\" | $filter",
        ssh = fixture.server.ssh(),
        near = volume(&near),
        old = volume(&old),
        far = volume(&fixture.remote),
    );
    let ssh = fixture.ssh_script(&ssh);
    let program = tests::program("machinectl");
    let program = program.to_str().unwrap();
    let hosts = ["nowhere", "old", "near", "far"];
    let pull = [
        &["pull", "linux"],
        &hosts[..],
        &["--ssh", &ssh, "--remote-program", program],
    ];
    let pulled = here.machinectl(&pull.concat(), b"").success().stderr;
    let mut lines = pulled.lines();
    for expected in [
        "linux: nowhere is left out: cannot reach nowhere",
        "linux: fetching revision 2 in full from near",
        "linux: near has failed, the next host is asked: the stream ends too early",
        "linux: fetching revision 2 in full from far",
        "linux: revision 2 is now current",
    ] {
        let line = lines.next().unwrap_or_default();
        assert!(line.starts_with(expected), "{expected}: {pulled}");
    }
    here.machinectl(&["verify", "linux"], b"").success();
    assert_same_content(&here, &fixture.remote);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_agent_fetches_new_revisions_of_the_machines_that_it_has() {
    let fixture = Fixture::new();
    fixture.push(&[]).success();
    // The remote host has its volume and its program elsewhere.
    let ssh = format!(
        "for line; do :; done
        exec {} root@127.0.0.1 \"BUILDHOST_VOLUME={} {} ${{line#buildhost }}\"",
        fixture.server.ssh(),
        fixture.remote.volume.path().display(),
        tests::program("machinectl").display(),
    );
    let ssh = fixture.ssh_script(&ssh);
    let settings = format!(
        "machines.pull_from = [\"nowhere.invalid\", \"root@127.0.0.1\"]\nmachines.pull_ssh = [\"{ssh}\"]\n"
    );
    let mut host = AgentHost::new(&settings);
    let pull = ["pull", "linux", "root@127.0.0.1", "--ssh", &ssh];
    host.machinectl(&pull).success();
    fixture.push(&[]).success();
    assert_eq!(host.host.view("linux").current.map(|it| it.0), Some(1));
    host.start();
    wait_until("the agent has fetched revision 2", || {
        host.host.view("linux").current.map(|it| it.0) == Some(2)
    });
    assert_same_content(&host.host, &fixture.remote);
    assert!(host.log().contains("pulled a revision"), "{}", host.log());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_note_travels_with_its_revision_and_names_who_brought_it_from_where() {
    let fixture = Fixture::new();
    fixture.push(&["-m", "gcc 14, no tests"]).success();
    let third = BuildHost::new(256);
    let pull = ["pull", "linux", "root@127.0.0.1"];
    fixture.run(third.command(&pull)).success();
    let work = fixture.work("").display().to_string();
    for (host, source) in [
        (&fixture.development, work.trim_end_matches('/')),
        (&fixture.remote, "push by alice@"),
        (&third, "pull from root@127.0.0.1"),
    ] {
        let status = host.machinectl(&["status", "linux"], b"").success().stdout;
        let line = status.lines().find(|it| it.ends_with("gcc 14, no tests"));
        let line = line.unwrap_or_else(|| panic!("{status}"));
        assert!(
            line.contains("1         alice@") && line.contains(source),
            "{line}"
        );
    }
    let status = ["status", "linux", "--json"];
    let status = fixture.remote.machinectl(&status, b"").success().stdout;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let note = &status["revisions"][0]["note"];
    assert_eq!(note["text"], "gcc 14, no tests");
    let source = note["source"].as_str().unwrap();
    assert!(source.ends_with(" from 127.0.0.1"), "{source}");
    // It goes with the revision.
    fixture.push(&["--keep", "1"]).success();
    let view = fixture.remote.view("linux");
    assert_eq!((view.revisions.len(), view.notes.len()), (1, 1));
    assert!(view.notes.iter().all(|it| it.0 == 2), "{view:?}");
}
