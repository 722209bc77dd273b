//! Invalid input and unexpected states of the host: each leads to one message and an exit code, and
//! changes nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use rustix::fs::{FallocateFlags, fallocate};
use tests::hosts::{BuildHost, CommandOutput, listing, run};
use tests::ssh::SshServer;
use tests::write_file;

/// A host with revisions 1 and 2 of `linux`, and a working subvolume.
struct Fixture {
    host: BuildHost,
    work: String,
}

impl Fixture {
    fn new(mebibytes: u64) -> Self {
        let host = BuildHost::new(mebibytes);
        let work = host.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        write_file(&work.join("manifest"), ": 1\n");
        let work = work.display().to_string();
        for verb in ["add", "upgrade"] {
            host.machinectl(&[verb, "linux", "--from", &work], b"")
                .success();
        }
        Self { host, work }
    }

    /// Returns a call with these arguments. `WORK` stands for the working subvolume.
    fn command(&self, line: &str) -> Command {
        let line = line.replace("WORK", &self.work);
        let arguments: Vec<_> = line.split(' ').collect();
        self.host.command(&arguments)
    }

    /// Runs `machinectl` and checks that it is refused and changes nothing.
    fn refused(&self, line: &str, code: i32, message: &str) {
        self.command_refused(self.command(line), code, message);
    }

    fn command_refused(&self, mut command: Command, code: i32, message: &str) {
        let before = listing(self.host.mount.path());
        command.env("BUILDHOST_SOCKET", "/no/agent.sock");
        let line = ::sys::command::line(&command);
        let answer = run(command, b"");
        println!("{}", answer.stderr.trim_end());
        let found = single_message(&answer).to_owned();
        assert!(found.contains(message), "{line}: {answer:?}");
        assert_eq!(answer.code, Some(code), "{line}: {answer:?}");
        assert_eq!(listing(self.host.mount.path()), before, "{line}");
    }
}

/// Returns the only line of the standard error, or the first one of a usage error.
fn single_message(answer: &CommandOutput) -> &str {
    let mut lines = answer.stderr.lines();
    let first = lines.next().unwrap_or_default();
    if answer.code != Some(2) {
        assert_eq!(lines.next(), None, "a single message: {answer:?}");
    }
    first
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn invalid_names_are_refused_by_every_verb() {
    let fixture = Fixture::new(256);
    let long = "x".repeat(300);
    let names = ["..", ".", "/", "a/b", "", "-x", "\u{fc}", "a b", &long];
    let verbs = [
        "add", "upgrade", "status", "delete", "rollback", "verify", "send", "prune", "build",
        "import", "push", "pull", "pin", "export", "doctor",
    ];
    for verb in verbs {
        for name in names {
            let mut command = fixture.host.command(&[verb, "--", name]);
            let more = match verb {
                "build" | "import" | "push" | "pull" => Some("x"),
                "pin" => Some("1"),
                _ => None,
            };
            command.args(more);
            let quoted = format!("`{}", name.chars().take(20).collect::<String>());
            fixture.command_refused(command, 2, &quoted);
        }
    }
    for line in [
        "toolchain add 2 WORK",
        "toolchain delete 2",
        "build linux x --toolchain 2",
    ] {
        fixture.refused(
            line,
            2,
            "must start with a letter (a number would read as a revision)",
        );
    }
    for host in ["", "-oProxyCommand=x", "a b"] {
        let push = fixture.host.command(&["push", "linux", "--", host]);
        fixture.command_refused(push, 2, "expected HOST or USER@HOST");
    }
    fixture.refused("pin linux 0x1", 2, "invalid value '0x1'");
    fixture.refused(
        "prune --until-free many",
        2,
        "expected a number and a unit, such as 20G",
    );
    fixture.refused("upgrade linux --from WORK --keep 0", 2, "invalid value '0'");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn missing_and_unsuitable_paths_are_refused() {
    let fixture = Fixture::new(256);
    let plain = tempfile::tempdir().unwrap();
    let plain = plain.path().display().to_string();
    let (volume, missing) = (format!("--volume {plain}"), "--volume /no/such");
    for verb in [
        "list",
        "status linux",
        "add linux --from WORK",
        "delete linux",
        "doctor",
    ] {
        fixture.refused(
            &format!("{verb} {volume}"),
            20,
            "is not on btrfs; `buildhost init DIRECTORY` makes",
        );
        fixture.refused(
            &format!("{verb} {missing}"),
            20,
            "there is no volume `/no/such`; `buildhost init /no/such` makes one",
        );
    }
    fixture.refused("init /etc", 3, "`/etc` is not empty and not on btrfs");
    for verb in [
        "status",
        "delete",
        "rollback",
        "verify",
        "upgrade --from WORK",
        "export -o x.tar",
    ] {
        fixture.refused(&format!("{verb} other"), 10, "there is no machine `other`");
    }
    fixture.refused(
        "verify linux 9",
        10,
        "machine `linux` has no complete revision 9",
    );
    fixture.refused(
        "upgrade linux --from /no/such",
        1,
        "`/no/such`: No such file",
    );
    fixture.refused(
        &format!("upgrade linux --from {plain}"),
        3,
        "is not a subvolume",
    );
    fixture.refused("export linux -o linux.zip", 2, "must end in .btrfs");
    fixture.refused("toolchain delete none", 10, "there is no toolchain `none`");
    fixture.refused(&format!("toolchain add empty {plain}"), 3, "holds no files");
    fixture.refused("builds", 4, "no agent answers at /no/agent.sock");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn without_root_changes_are_refused_and_the_message_names_root() {
    let fixture = Fixture::new(256);
    // All users can read the volume, but only root may change it.
    let readable = fs::Permissions::from_mode(0o755);
    for path in [fixture.host.mount.path(), fixture.host.volume.path()] {
        fs::set_permissions(path, readable.clone()).unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = copy.path().join("machinectl");
    fs::copy(tests::program("machinectl"), &program).unwrap();
    let nobody = |line: &str| {
        let call = fixture.command(line);
        let mut command = ::sys::command::prepare(&program);
        command.args(call.get_args()).uid(65534).gid(65534);
        let variables = call.get_envs();
        command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        command
    };
    let answer = run(nobody("list"), b"").success();
    assert!(answer.stdout.contains("in service"), "{answer:?}");
    for line in [
        "add new --from WORK",
        "upgrade linux --from WORK",
        "import new WORK",
        "delete linux",
        "rollback linux",
        "pin linux 1",
        "prune --keep 1",
        "send linux",
        "toolchain add default WORK",
    ] {
        fixture.command_refused(nobody(line), 25, "this needs root: ");
    }
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = nobody("list");
    command.env("XDG_CONFIG_HOME", private.path());
    run(command, b"").refused(1, "set HOME or XDG_CONFIG_HOME to a directory");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn locks_broken_links_and_unmanaged_files_are_named_and_left_alone() {
    let fixture = Fixture::new(256);
    let volume = fixture.host.volume.path().to_owned();
    let (linux, link) = (volume.join("linux"), volume.join("linux/linux"));

    let held = File::open(&linux).unwrap();
    held.lock().unwrap();
    let holder = format!("(process {})", std::process::id());
    fixture.refused("rollback linux", 18, &holder);
    drop(held);

    for elsewhere in ["/etc", "../../work", "linux"] {
        fs::remove_file(&link).unwrap();
        symlink(elsewhere, &link).unwrap();
        let reason = format!("its link leads to `{elsewhere}`");
        for line in [
            "upgrade linux --from WORK",
            "rollback linux",
            "verify linux",
        ] {
            fixture.refused(line, 10, &reason);
        }
        fixture.refused("add linux --from WORK", 11, "already exists");
    }
    // The message names this remedy.
    fixture
        .host
        .machinectl(&["rollback", "linux", "2"], b"")
        .success();

    fs::create_dir(volume.join("stranger")).unwrap();
    write_file(&volume.join("stranger/notes"), "mine");
    fixture.refused("delete stranger", 10, "there is no machine `stranger`");
    fixture
        .host
        .machinectl(&["add", "stranger", "--from", &fixture.work], b"")
        .success();
    let answer = fixture
        .host
        .machinectl(&["delete", "stranger"], b"")
        .success();
    assert!(answer.stderr.contains("except unmanaged entries: notes"));
    assert_eq!(
        fs::read_to_string(volume.join("stranger/notes")).unwrap(),
        "mine"
    );

    write_file(&volume.join("file"), "mine");
    symlink("linux", volume.join("alias")).unwrap();
    for name in ["file", "alias"] {
        fixture.refused(
            &format!("add {name} --from WORK"),
            3,
            "exists but is not a directory",
        );
        fixture.refused(
            &format!("delete {name}"),
            10,
            &format!("no machine `{name}`"),
        );
        fixture.refused(
            &format!("status {name}"),
            10,
            &format!("no machine `{name}`"),
        );
    }
    write_file(&linux.join("linux-3"), "mine");
    fixture.refused("pin linux 3", 10, "no complete revision 3");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn remote_hosts_that_are_unreachable_or_untrusted_are_refused() {
    let fixture = Fixture::new(256);
    let server = SshServer::start();
    let by = |ssh: &str, line: &str| {
        let mut command = fixture.command(line);
        command.env("BUILDHOST_SSH", ssh);
        command
    };
    let changed = server.ssh_with_changed_host();
    let push = "push linux root@127.0.0.1 --from WORK";
    fixture.command_refused(by(&changed, push), 24, "removes the old one");
    fixture.command_refused(by(&changed, "pull other root@127.0.0.1"), 24, "has changed");
    fixture.command_refused(
        by(&server.ssh(), "push linux nowhere.invalid"),
        24,
        "cannot reach nowhere.invalid: ",
    );
    fixture.command_refused(by("no-such-ssh", push), 1, "cannot run `no-such-ssh");
    let unclosed = run(by("ssh -i '/my keys/id", push), b"");
    assert_eq!(unclosed.code, Some(2), "{unclosed:?}");
    let reason = "a quote is not closed";
    assert!(unclosed.stderr.contains(reason), "{unclosed:?}");
    let mut stranger = by(&server.ssh(), push);
    stranger.args(["--remote-program", "no-such-program"]);
    fixture.command_refused(stranger, 1, "root@127.0.0.1: ");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_push_fails_if_a_disk_at_either_end_is_full_and_leaves_nothing() {
    let (fixture, remote) = (Fixture::new(256), Fixture::new(128));
    // Little space is left, so that a short stream fills the disk.
    let ballast = File::create(remote.host.mount.path().join("ballast")).unwrap();
    let room = remote.host.volume.free().unwrap() - (8 << 20);
    fallocate(&ballast, FallocateFlags::empty(), 0, room).unwrap();
    let noise: Vec<u8> = (0..16_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let disk = format!("{}/disk.img", fixture.work);
    File::create(disk).unwrap().write_all(&noise).unwrap();
    let server = SshServer::start();
    let push = || {
        let mut push = fixture.command("push linux root@127.0.0.1 --full -q --remote-volume");
        push.arg(remote.host.volume.path()).arg("--remote-program");
        push.arg(tests::program("machinectl"))
            .env("BUILDHOST_SSH", server.ssh());
        push
    };
    remote
        .host
        .machinectl(&["rollback", "linux", "1"], b"")
        .success();
    let remote_before = listing(remote.host.mount.path());
    let upgrade = ["upgrade", "linux", "--from", &fixture.work];
    fixture.host.machinectl(&upgrade, b"").success();
    fixture.command_refused(push(), 16, "is full");
    assert_eq!(listing(remote.host.mount.path()), remote_before);

    // The sender's disk is full, where it creates the revision. Filling the metadata takes long.
    if !tests::is_long_run() {
        return;
    }
    fill(&remote);
    let mut push = remote.command("push linux root@127.0.0.1 --from WORK -q --remote-volume");
    push.arg(fixture.host.volume.path()).arg("--remote-program");
    push.arg(tests::program("machinectl"));
    push.env("BUILDHOST_SSH", server.ssh());
    let before = listing(fixture.host.mount.path());
    remote.command_refused(push, 16, "No space left on device");
    assert_eq!(listing(fixture.host.mount.path()), before);
}

/// Fills the data and the metadata of a file system.
fn fill(fixture: &Fixture) {
    let ballast = fixture.host.mount.directory("more-ballast");
    for (round, size) in [1 << 20, 2000, 0].into_iter().enumerate() {
        for number in 0.. {
            let path = ballast.join(format!("{round}-{number}"));
            let piece = vec![u8::try_from(number % 251).unwrap(); size];
            if File::create(path)
                .and_then(|mut file| file.write_all(&piece))
                .is_err()
            {
                break;
            }
        }
        let _ = libbtrfsutil::sync(&ballast);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn old_btrfs_progs_that_can_lose_data_cause_a_warning() {
    let fixture = Fixture::new(256);
    let old = tempfile::tempdir().unwrap();
    let script = "#!/bin/sh\n[ \"$*\" != --version ] || exec echo btrfs-progs v5.16\n\
                  PATH=${PATH#*:}; exec btrfs \"$@\"\n";
    let btrfs = old.path().join("btrfs");
    write_file(&btrfs, script);
    fs::set_permissions(&btrfs, fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", old.path().display());
    let upgrade = |line: &str| {
        let mut call = fixture.command(line);
        call.env("PATH", &path);
        run(call, b"")
    };
    let answer = upgrade("upgrade linux --from WORK").success();
    let warning = "machinectl: warning: btrfs-progs 5.16 can lose data";
    assert_eq!(answer.stderr.matches(warning).count(), 1, "{answer:?}");
    let answer = upgrade("upgrade linux --from WORK -q").success();
    assert_eq!(answer.stderr, "");
}
