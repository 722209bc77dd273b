//! Full disks: the commands that free space work although no space is left.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use tests::hosts::{BuildHost, DevelopmentHost};

/// Returns a host with four revisions of `linux`, leftovers, and a machine that is half deleted.
fn host() -> BuildHost {
    let (host, development) = (BuildHost::new(128), DevelopmentHost::new(256));
    for number in 1..=4_u8 {
        let name = format!("linux-{number}");
        development.image(&name, None, &[("disk.img", &vec![number; 2 << 20])]);
        let verb = if number == 1 { "add" } else { "upgrade" };
        host.machinectl(&[verb, "linux"], &development.send(&name, None))
            .success();
    }
    let linux = host.volume.path().join("linux");
    BtrfsBackend
        .snapshot(&linux.join("linux-1"), &linux.join("linux-default-1"))
        .unwrap();
    for half in ["linux-5", "linux-default"] {
        BtrfsBackend.create(&linux.join(half)).unwrap();
    }
    for link in ["new", "arriving-5", "pin-9", "deleting"] {
        symlink("linux-1", linux.join(format!(".buildhost.{link}"))).unwrap();
    }
    let gone = host.volume.path().join("gone");
    fs::create_dir(&gone).unwrap();
    BtrfsBackend
        .snapshot_read_only(&linux.join("linux-1"), &gone.join("gone-1"))
        .unwrap();
    symlink("gone-1", gone.join(".buildhost.deleting")).unwrap();
    host
}

/// Writes files of these sizes, one size after the other, until the disk is full.
fn fill(directory: &Path, sizes: &[usize]) {
    fs::create_dir(directory).unwrap();
    for (round, size) in sizes.iter().enumerate() {
        for number in 0.. {
            let path = directory.join(format!("{round}-{number}"));
            let piece = vec![u8::try_from(number % 251).unwrap(); *size];
            let written = File::create(path).and_then(|mut file| file.write_all(&piece));
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
        // Delayed allocations happen now.
        let _ = libbtrfsutil::sync(directory);
    }
}

/// Checks the commands that free space. The disk is filled again before each group of them.
fn check_commands_on_full_disk(host: &BuildHost, sizes: &[usize]) {
    let fill_disk = |name: &str| {
        fill(&host.mount.path().join(name), sizes);
        assert!(host.volume.free().unwrap() < 1 << 20);
    };
    fill_disk("one");
    host.machinectl(&["doctor", "--repair"], b"").success();
    let view = host.view("linux");
    assert!(view.snapshots.is_empty() && view.images.is_empty());
    assert!(!view.incoming && !view.deleting && view.pins.is_empty());
    assert_eq!((view.revisions.len(), view.arriving.len()), (4, 0));
    assert!(!host.volume.path().join("gone").exists());
    fill_disk("two");
    // Commands that need space may fail, but then they change nothing.
    let before = host.listing();
    for command in [["pin", "linux", "2"], ["rollback", "linux", "3"]] {
        let output = host.machinectl(&command, b"");
        let is_unchanged = host.listing() == before;
        assert!(output.code == Some(0) || is_unchanged, "{output:?}");
        println!("{}: {:?}", command[0], output.code);
    }
    for (verb, revision) in [("unpin", "2"), ("rollback", "4")] {
        host.machinectl(&[verb, "linux", revision], b"").success();
    }
    host.machinectl(&["prune", "--keep", "1"], b"").success();
    assert_eq!(host.view("linux").revisions.len(), 1);
    fill_disk("three");
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(!host.volume.path().join("linux").exists());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn space_can_be_freed_when_the_data_is_full() {
    let host = host();
    check_commands_on_full_disk(&host, &[1 << 20, 64 << 10, 4096]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn space_can_be_freed_when_the_metadata_is_full() {
    let host = host();
    // Btrfs stores small files in the metadata.
    check_commands_on_full_disk(&host, &[1 << 20, 2000, 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_without_a_link_can_be_deleted_on_a_full_disk() {
    let host = host();
    fs::remove_file(host.volume.path().join("linux/linux")).unwrap();
    fill(&host.mount.path().join("ballast"), &[1 << 20, 2000, 0]);
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(!host.volume.path().join("linux").exists());
}

/// Returns this many MiB that do not compress.
fn noise(mebibytes: u32) -> Vec<u8> {
    (0..mebibytes << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn imports_into_a_full_volume_are_refused_and_leave_nothing() {
    let (host, sources) = (BuildHost::new(128), BuildHost::new(512));
    let directory = sources.mount.directory("big");
    let disk = directory.join("disk.img");
    BtrfsBackend.write(&disk, &noise(150)).unwrap();
    tests::write_file(&directory.join("manifest"), ": 1\nid: big\nsummary: Big\n");
    let archive = sources.mount.path().join("big.tar");
    let mut tar = ::sys::command::prepare("tar");
    tar.arg("-C")
        .arg(&directory)
        .arg("-cf")
        .arg(&archive)
        .arg(".");
    ::sys::command::run(tar, std::time::Duration::from_mins(1)).unwrap();
    let before = host.volume.free().unwrap();
    for source in [directory.join("disk.img"), directory.clone(), archive] {
        let source = source.to_str().unwrap();
        let output = host.machinectl(&["import", "big", source], b"");
        assert_eq!(output.code, Some(16), "{source}: {output:?}");
        assert!(host.listing().is_empty(), "{source}: {:?}", host.listing());
        let lost = before.saturating_sub(host.volume.free().unwrap());
        assert!(lost < 16 << 20, "{source}: {lost} bytes are not given back");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn exports_to_a_full_disk_are_refused_and_leave_nothing() {
    let (host, target) = (BuildHost::new(512), BuildHost::new(128));
    let image = host.mount.path().join("image");
    BtrfsBackend.create(&image).unwrap();
    BtrfsBackend
        .write(&image.join("disk.img"), &noise(150))
        .unwrap();
    let add = ["add", "big", "--from", image.to_str().unwrap()];
    host.machinectl(&add, b"").success();
    for suffix in ["btrfs", "btrfs.zst", "tar", "tar.zst"] {
        let file = target.volume.path().join(format!("big.{suffix}"));
        let export = ["export", "big", "-o", file.to_str().unwrap()];
        let output = host.machinectl(&export, b"");
        assert_eq!(output.code, Some(16), "{suffix}: {output:?}");
        assert!(
            target.listing().is_empty(),
            "{suffix}: {:?}",
            target.listing()
        );
    }
}
