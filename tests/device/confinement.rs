//! Tools that read streams of others: what they see of the host, and what they can change.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ::store::Volume;
use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::sys::command::{self, CommandError};
use ::sys::mount_view::{Ioctls, MountView, Rights, clone_mount};
use nix::mount::{MsFlags, mount};
use rustix::thread::CapabilitySet;
use tests::attacks::refused;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::mount::enter_own_namespace;
use tests::write_file;

const LIMIT: Duration = Duration::from_mins(1);

/// Runs a shell script in a view of a directory, in which `writable` can be written to.
fn run(directory: &Path, writable: &str, script: &str) -> Result<(), CommandError> {
    let mut view = MountView::of_programs();
    view.mount(clone_mount(directory).unwrap(), "/data");
    view.make_writable(Path::new("/data").join(writable));
    let mut shell = command::prepare("sh");
    shell.args(["-ec", script]);
    let capabilities = CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_CHROOT;
    let ioctls = Ioctls::Clone;
    let rights = Rights {
        capabilities,
        ioctls,
    };
    view.start(shell, rights)?.finish(LIMIT)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_confined_program_reaches_only_what_it_was_given() {
    enter_own_namespace();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    fs::create_dir(root.join("own")).unwrap();
    fs::create_dir(root.join("other")).unwrap();
    write_file(&root.join("other/file"), "other\n");
    let outside = tempfile::NamedTempFile::new().unwrap();
    let outside = outside.path().display();
    let table = [
        ("read", "grep -q other /data/other/file", true),
        ("write", "echo x >/data/own/file", true),
        ("write elsewhere", "echo x >/data/other/file", false),
        ("remove elsewhere", "rm /data/other/file", false),
        ("create elsewhere", "mkdir /data/new", false),
        ("climb out", "cd /data/own; ls ../../../../../../etc", false),
        ("read the host", &format!("cat {outside}"), false),
        ("write to the host", &format!("echo x >{outside}"), false),
        ("change a program", "echo x >/usr/bin/x", false),
        ("change the root", "mkdir /x", false),
        ("see processes", "ls /proc/1", false),
        ("make writable", "mount -o remount,bind,rw /usr", false),
        ("mount the devices", "mount -t devtmpfs x /data/own", false),
        ("enter a new namespace", "unshare --mount true", false),
        ("create a device", "mknod /data/own/d b 1 1", false),
        ("change the owner", "chown 7 /data/own", false),
        (
            "leave by chroot",
            "mkdir -p /data/own/c; chroot /data/own/c /bin/sh",
            false,
        ),
    ];
    for (name, script, expected) in table {
        let result = run(root, "own", script);
        assert_eq!(result.is_ok(), expected, "{name}: {result:?}");
        if !expected {
            refused("confined tool -> host", name, "mount view, capabilities");
        }
    }
    assert_eq!(
        fs::read_to_string(root.join("other/file")).unwrap(),
        "other\n"
    );
    assert_eq!(fs::read_to_string(root.join("own/file")).unwrap(), "x\n");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_volume_receives_wherever_it_is_mounted() {
    let source = DevelopmentHost::new(256);
    source.image("linux-1", None, &[("manifest", b"one")]);
    source.image("linux-2", Some("linux-1"), &[("f", b"two")]);
    let full = source.send("linux-1", None);
    let incremental = source.send("linux-2", Some("linux-1"));

    let host = BuildHost::new(256);
    let top = host.mount.path();
    // A subvolume in a subvolume, mounted in three ways.
    BtrfsBackend.create(&top.join("data")).unwrap();
    BtrfsBackend.create(&top.join("data/inner")).unwrap();
    let points = tempfile::tempdir().unwrap();
    let bind = |from: &Path, name: &str| {
        let point = points.path().join(name);
        fs::create_dir(&point).unwrap();
        mount(
            Some(from),
            &point,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        point
    };
    for name in ["plain", "directory", "inner"] {
        fs::create_dir_all(top.join("data/inner").join(name)).unwrap();
    }
    let volumes = [
        top.join("data/inner/plain"),
        bind(&top.join("data/inner/directory"), "directory"),
        bind(&top.join("data/inner"), "subvolume").join("inner"),
    ];
    for path in volumes {
        let volume = Volume::open(&path).unwrap();
        let run = |arguments: &[&str], input: &[u8]| {
            let mut command = host.command(arguments);
            command.env("BUILDHOST_VOLUME", volume.path());
            tests::hosts::run(command, input)
        };
        run(&["add", "linux"], &full).success();
        run(&["upgrade", "linux"], &incremental).success();
        let machine = path.join("linux");
        assert_eq!(
            fs::read(machine.join("linux-2/f")).unwrap(),
            b"two",
            "{path:?}"
        );
        for name in ["linux", "linux-1", "linux-2"] {
            assert!(machine.join(name).exists(), "{path:?}");
        }
    }
}
