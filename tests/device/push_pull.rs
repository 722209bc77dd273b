//! `machinectl push`, `pull` and `verify`, over a real sshd, between real volumes.

use std::fs;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::ssh::SshServer;
use tests::write_file;

/// A development host with a working subvolume, and a build host behind ssh.
struct World {
    development: BuildHost,
    far: BuildHost,
    server: SshServer,
}

impl World {
    fn new() -> Self {
        let (development, far) = (BuildHost::new(512), BuildHost::new(256));
        let work = development.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        write_file(&work.join("manifest"), ": 1\n");
        BtrfsBackend
            .write(&work.join("disk.img"), &vec![7; 3 << 20])
            .unwrap();
        Self {
            development,
            far,
            server: SshServer::start(),
        }
    }

    fn work(&self, name: &str) -> std::path::PathBuf {
        self.development.mount.path().join("work").join(name)
    }

    /// Calls a verb on the development host with the other one as its far side.
    fn call(&self, arguments: &[&str]) -> CommandOutput {
        self.call_by(&self.server.ssh(), arguments)
    }

    fn call_by(&self, ssh: &str, arguments: &[&str]) -> CommandOutput {
        let mut command = self.development.command(arguments);
        command.arg("--remote-volume").arg(self.far.volume.path());
        command
            .arg("--remote-program")
            .arg(tests::program("machinectl"));
        command.env("BUILDHOST_SSH", ssh);
        run(command, b"")
    }

    fn quiet_push(&self, more: &[&str]) -> CommandOutput {
        let work = self.work("");
        let push = [
            "push",
            "linux",
            "root@127.0.0.1",
            "-q",
            "--from",
            work.to_str().unwrap(),
        ];
        self.call(&[&push, more].concat())
    }

    fn push(&self) -> CommandOutput {
        let work = self.work("");
        self.call(&[
            "push",
            "linux",
            "root@127.0.0.1",
            "--from",
            work.to_str().unwrap(),
        ])
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_working_subvolume_is_pushed_in_full_and_then_by_its_differences() {
    let world = World::new();
    let first = world.push().success();
    assert!(first.stderr.contains("revision 1 in full"), "{first:?}");
    write_file(&world.work("more"), "more");
    let second = world.push().success();
    assert!(
        second
            .stderr
            .contains("revision 2 as the difference from revision 1"),
        "{second:?}"
    );
    let view = world.far.look("linux");
    assert_eq!(view.current.map(|it| it.0), Some(2));
    let more = world.far.volume.path().join("linux/linux/more");
    assert_eq!(fs::read_to_string(more).unwrap(), "more");
    let again = world.call(&["push", "linux", "root@127.0.0.1"]).success();
    assert!(
        again.stderr.contains("already current on root@127.0.0.1"),
        "{again:?}"
    );
    let verified = world.far.machinectl(&["verify", "linux"], b"").success();
    assert!(
        verified.stderr.contains("verified 4 files, 3 MiB"),
        "{verified:?}"
    );
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_is_pulled_by_its_differences_and_relayed() {
    let world = World::new();
    world.push().success();
    let third = BuildHost::new(256);
    let pull = |dry: &[&str]| {
        let arguments = [&["pull", "linux", "root@127.0.0.1"], dry].concat();
        let mut command = third.command(&arguments);
        command.arg("--remote-volume").arg(world.far.volume.path());
        command
            .arg("--remote-program")
            .arg(tests::program("machinectl"));
        command.env("BUILDHOST_SSH", world.server.ssh());
        run(command, b"")
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
    write_file(&world.work("more"), "more");
    world.push().success();
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
fn what_was_tampered_with_is_found_and_the_old_revision_stays() {
    let world = World::new();
    world.push().success();
    // Somebody opens up what was received, by the ioctl: btrfs cannot see it.
    let received = world.far.volume.path().join("linux/linux-1");
    libbtrfsutil::set_subvolume_read_only(&received, false).unwrap();
    write_file(&received.join("manifest"), ": 1\nid: evil\n");
    write_file(&received.join("stray"), "stray");
    libbtrfsutil::set_subvolume_read_only(&received, true).unwrap();
    world
        .far
        .machinectl(&["verify", "linux"], b"")
        .refused(23, "`manifest` has another content, `stray` was added");

    write_file(&world.work("more"), "more");
    world.quiet_push(&[]).refused(23, "`stray` was added");
    let view = world.far.look("linux");
    assert_eq!(
        (view.current.map(|it| it.0), view.revisions.len()),
        (Some(1), 1)
    );
    // The way out: build on nothing that is there.
    let full = world
        .call(&["push", "linux", "root@127.0.0.1", "--full"])
        .success();
    assert!(full.stderr.contains("revision 2 in full"), "{full:?}");
    world.far.machinectl(&["verify", "linux"], b"").success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn refusals_of_the_far_side_come_back_with_their_codes() {
    let world = World::new();
    world.push().success();
    let other = world.far.mount.path().join("other");
    BtrfsBackend.create(&other).unwrap();
    let other = other.to_str().unwrap();
    world
        .far
        .machinectl(&["upgrade", "linux", "--from", other], b"")
        .success();
    write_file(&world.work("more"), "more");
    world
        .quiet_push(&[])
        .refused(12, "revision 2 is not newer than revision 2");
    let status = world
        .development
        .machinectl(&["status", "linux"], b"")
        .success()
        .stdout;
    assert!(status.contains("linux: in service"));
    world
        .development
        .machinectl(&["verify", "linux", "9"], b"")
        .refused(10, "no complete revision 9");
}
