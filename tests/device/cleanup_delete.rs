//! The clean-up after a boot, and deletions, on real btrfs.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::{Child, Stdio};
use std::time::Duration;

use ::store::clean;
use ::store::subvolumes::BtrfsBackend;
use ::store::{Snapshot, SnapshotSource, Step, SubvolumeBackend};
use config::MachineName;
use config::task::Provenance;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::wait_until;

/// Returns a host with two revisions of the machine `linux` and an image for `default`.
fn host() -> BuildHost {
    let (host, development) = (BuildHost::new(512), DevelopmentHost::new(256));
    development.image("linux-1", None, &[("disk.img", b"one")]);
    development.image("linux-2", Some("linux-1"), &[("disk.img", b"two")]);
    host.machinectl(&["add", "linux"], &development.send("linux-1", None))
        .success();
    let stream = development.send("linux-2", Some("linux-1"));
    host.machinectl(&["upgrade", "linux"], &stream).success();
    let snapshot = snapshot(&host, &SnapshotSource::Current, "first");
    let provenance = Provenance {
        revision_uuid: snapshot.source_revision().unwrap().uuid.to_string(),
        toolchain_id: "a".repeat(64).parse().unwrap(),
        bootstrap_version: 1,
    };
    host.volume.publish_image(snapshot, &provenance).unwrap();
    host
}

fn snapshot(host: &BuildHost, origin: &SnapshotSource, tag: &str) -> Snapshot {
    let (machine, toolchain) = ("linux".parse().unwrap(), "default".parse().unwrap());
    host.volume
        .snapshot(&machine, origin, &toolchain, &tag.parse().unwrap())
        .unwrap()
}

/// Returns the steps of a clean-up after a boot.
fn clean_plan(host: &BuildHost) -> Vec<(MachineName, Step)> {
    let machines = host.volume.machines().unwrap();
    machines
        .into_iter()
        .flat_map(|machine| {
            let steps = clean::plan(&host.volume.view(&machine).unwrap());
            steps.into_iter().map(move |step| (machine.clone(), step))
        })
        .collect()
}

fn image_origin() -> SnapshotSource {
    SnapshotSource::Image("default".parse().unwrap())
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_cleanup_after_a_boot_deletes_all_leftovers_and_no_unmanaged_files() {
    let host = host();
    let clean = host.listing();
    let linux = host.volume.path().join("linux");
    let backend = BtrfsBackend;
    // The leftovers of builds, a receive and an upgrade.
    drop(snapshot(&host, &image_origin(), "1"));
    backend
        .create(&linux.join("linux-default-1/inner"))
        .unwrap();
    backend
        .create(&linux.join("linux-default-1/inner/innermost"))
        .unwrap();
    backend
        .snapshot_read_only(
            &linux.join("linux-default-1"),
            &linux.join("linux-default-2"),
        )
        .unwrap();
    backend.create(&linux.join("linux-3")).unwrap();
    symlink("linux-3", linux.join(".buildhost.arriving-3")).unwrap();
    backend.create(&linux.join("linux-other")).unwrap();
    symlink("linux-2", linux.join(".buildhost.new")).unwrap();
    // A machine whose link was removed, one that was being deleted, and a broken one.
    for (machine, link) in [("unlinked", None), ("half", Some(".buildhost.deleting"))] {
        let directory = host.volume.path().join(machine);
        fs::create_dir(&directory).unwrap();
        backend
            .snapshot_read_only(
                &linux.join("linux-1"),
                &directory.join(format!("{machine}-1")),
            )
            .unwrap();
        backend
            .snapshot_read_only(
                &linux.join("linux-default"),
                &directory.join(format!("{machine}-default")),
            )
            .unwrap();
        if let Some(link) = link {
            symlink(format!("{machine}-1"), directory.join(link)).unwrap();
        }
    }
    // Unmanaged entries of all kinds, some of which resemble managed ones.
    fs::create_dir(host.volume.path().join("unmanaged")).unwrap();
    fs::create_dir(linux.join("linux-9")).unwrap();
    fs::create_dir(linux.join("notes")).unwrap();
    backend.create(&linux.join("Linux-1")).unwrap();
    backend.create(&linux.join("linux-007")).unwrap();
    symlink("/etc", linux.join("linux-8")).unwrap();
    tests::write_file(&linux.join("linux-default-7"), "a file");
    tests::write_file(&host.volume.path().join("README"), "a file");

    let plan = clean_plan(&host);
    let report = host.volume.clean_after_boot();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert_eq!(report.done, plan);
    let mut expected = clean;
    expected.extend(
        [
            "README 6 bytes (7365d029)",
            "linux/Linux-1 (writable)",
            "linux/linux-007 (writable)",
            "linux/linux-8 -> /etc",
            "linux/linux-9",
            "linux/linux-default-7 6 bytes (7365d029)",
            "linux/notes",
            "unmanaged",
        ]
        .map(str::to_owned),
    );
    expected.sort();
    assert_eq!(host.listing(), expected);
    assert!(clean_plan(&host).is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_cleanup_after_a_boot_deletes_nothing_of_a_machine_with_a_broken_link() {
    let host = host();
    let linux = host.volume.path().join("linux");
    for target in ["linux-9", "/etc", "linux-default", "../linux"] {
        fs::remove_file(linux.join("linux")).unwrap();
        symlink(target, linux.join("linux")).unwrap();
        let before = host.listing();
        drop(host.volume.clean_after_boot());
        assert_eq!(host.listing(), before, "{target}");
        let answer = host.machinectl(&["status", "linux"], b"").success();
        assert!(
            answer.stdout.contains("broken: its link leads to"),
            "{answer:?}"
        );
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn one_cleanup_deletes_a_thousand_leftovers() {
    let host = host();
    let linux = host.volume.path().join("linux");
    for number in 0..1000 {
        BtrfsBackend
            .create(&linux.join(format!("linux-default-{number}")))
            .unwrap();
    }
    let report = host.volume.clean_after_boot();
    assert_eq!((report.done.len(), report.failed.len()), (1000, 0));
    assert!(host.view("linux").snapshots.is_empty());
}

/// Starts a process that uses a snapshot as a guest does, by an inherited file descriptor.
fn guest(snapshot: &Snapshot) -> Child {
    let mut sleep = ::sys::command::prepare("sleep");
    sleep
        .arg("1000")
        .stdin(Stdio::null())
        .stdout(File::from(snapshot.share_lock().unwrap()));
    sleep.spawn().unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_deletion_waits_for_a_guest_and_names_its_process() {
    let host = host();
    let held = snapshot(&host, &image_origin(), "1");
    let mut guest = guest(&held);
    // The guest outlives the agent.
    drop(held);
    assert!(host.view("linux").snapshots[0].in_use);

    let plan = host
        .machinectl(&["delete", "linux", "--dry-run"], b"")
        .success()
        .stdout;
    assert!(
        plan.contains("would delete revision 2 of linux\n") && !plan.contains("snapshot 1"),
        "{plan}"
    );
    let reason = format!("is in use by sleep (process {})", guest.id());
    host.machinectl(&["delete", "linux", "--timeout", "0"], b"")
        .refused(17, &reason);
    let view = host.view("linux");
    assert!(
        view.deleting && view.current.is_none(),
        "the machine is out of service"
    );
    host.machinectl(&["upgrade", "linux", "--from", "/dev/null"], b"")
        .refused(14, "empty");
    let report = host.volume.finish_deletions();
    assert!(
        report.done.is_empty() && report.failed.is_empty(),
        "the deletion waits"
    );

    // A second call waits until the guest has ended.
    let mut delete = host.command(&["delete", "linux", "--timeout", "60"]);
    let mut delete = delete.stderr(Stdio::null()).spawn().unwrap();
    guest.kill().unwrap();
    guest.wait().unwrap();
    assert!(delete.wait().unwrap().success());
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_forced_deletion_deletes_snapshots_that_are_in_use() {
    let host = host();
    let _held = snapshot(&host, &image_origin(), "1");
    host.machinectl(&["delete", "linux", "--timeout", "0", "--force"], b"")
        .success();
    assert!(host.listing().is_empty());
    host.machinectl(&["delete", "linux"], b"")
        .refused(10, "there is no machine `linux`");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_deletion_that_timed_out_is_finished_later() {
    let host = host();
    let held = snapshot(&host, &image_origin(), "1");
    host.machinectl(&["delete", "linux", "--timeout", "0"], b"")
        .refused(17, "is in use by");
    let add = host.machinectl(&["add", "linux", "--from", "/dev/null"], b"");
    assert_eq!(add.code, Some(14), "{add:?}");
    drop(held);
    let report = host.volume.finish_deletions();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_is_locked_while_another_process_changes_it() {
    let host = host();
    let volume = host
        .volume
        .clone()
        .with_lock_timeout(Duration::from_millis(1));
    let mut other = ::sys::command::prepare("flock");
    other
        .arg("--no-fork")
        .arg(volume.path().join("linux"))
        .args(["sleep", "1000"]);
    let mut other = other.spawn().unwrap();
    let machine = "linux".parse().unwrap();
    wait_until("the other process has the lock", || {
        let result = volume.set_current(&machine, config::Revision(1));
        result.is_err_and(|error| error.to_string().contains("is locked by sleep (process"))
    });
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_image_can_be_replaced_while_a_build_uses_its_snapshot() {
    let host = host();
    let build = snapshot(&host, &image_origin(), "1");
    let bootstrap = snapshot(&host, &SnapshotSource::Current, "second");
    tests::write_file(&bootstrap.path().join("installed"), "new");
    BtrfsBackend
        .create(&bootstrap.path().join("nested"))
        .unwrap();
    let provenance = Provenance {
        revision_uuid: bootstrap.source_revision().unwrap().uuid.to_string(),
        toolchain_id: "b".repeat(64).parse().unwrap(),
        bootstrap_version: 1,
    };
    host.volume.publish_image(bootstrap, &provenance).unwrap();
    let view = host.view("linux");
    assert_eq!(view.images[0].provenance, Some(provenance));
    assert_eq!(view.snapshots.len(), 1);
    assert!(
        host.volume
            .path()
            .join("linux/linux-default/installed")
            .is_file()
    );
    assert!(
        build.path().join("disk.img").is_file(),
        "the snapshot of the build is untouched"
    );

    let (machine, toolchain) = ("linux".parse().unwrap(), "default".parse().unwrap());
    let volume = host.volume.clone().with_lock_timeout(Duration::ZERO);
    let delete = || volume.delete_snapshot(&machine, &toolchain, &"1".parse().unwrap());
    assert!(delete().unwrap_err().to_string().contains("is in use by"));
    drop(build);
    assert_eq!(delete().unwrap(), ::store::Change::Changed);
    assert_eq!(delete().unwrap(), ::store::Change::Unchanged);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn machines_are_shown_as_a_table_and_as_json() {
    let host = host();
    let _held = snapshot(&host, &image_origin(), "1");
    tests::write_file(&host.volume.path().join("linux/notes"), "mine");
    fs::create_dir(host.volume.path().join("lost+found")).unwrap();
    let table = host.machinectl(&["list"], b"").success().stdout;
    assert_eq!(
        table,
        "MACHINE  CURRENT  REVISIONS  TOOLCHAINS  BUILDS  STATE\n\
         linux    2        2          default     1       in service\n"
    );
    let json = host.machinectl(&["list", "--json"], b"").success().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["machine"], "linux");
    assert_eq!(json[0]["images"][0]["up_to_date"], true);
    assert_eq!(json[0]["revisions"][1]["current"], true);
    assert_eq!(json[0]["snapshots"][0]["in_use"], true);
    let status = host.machinectl(&["status", "linux"], b"").success().stdout;
    for expected in [
        "linux: in service",
        "default    ready  revision 2",
        "in use",
        "UNMANAGED\nnotes",
    ] {
        assert!(status.contains(expected), "{status}");
    }
}
