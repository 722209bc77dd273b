//! `machinectl push`, `pull` and `verify` between real volumes over a real sshd.

use std::fs;
use std::process::Command;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::ssh::SshServer;
use tests::write_file;

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
        run(command, b"")
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
    fixture.push(&["-q"]).refused(23, "`stray` was added");
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
    write_file(&fixture.work("more"), "more");
    fixture
        .push(&["-q"])
        .refused(12, "revision 2 is not newer than revision 2");
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
