//! Full disks: what gives space back works without any.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use tests::hosts::{BuildHost, DevelopmentHost};

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

/// Writes until nothing more goes in, in pieces of these sizes.
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
        // What was only promised has to find its place now.
        let _ = libbtrfsutil::sync(directory);
    }
}

/// Whatever gives space back has to do without any, each time anew.
fn gives_space_back(host: &BuildHost, sizes: &[usize]) {
    let full = |name: &str| {
        fill(&host.mount.path().join(name), sizes);
        assert!(host.volume.free().unwrap() < 1 << 20);
    };
    full("one");
    host.machinectl(&["doctor", "--repair"], b"").success();
    let view = host.look("linux");
    assert!(view.snapshots.is_empty() && view.images.is_empty());
    assert!(!view.incoming && !view.deleting && view.pins.is_empty());
    assert_eq!((view.revisions.len(), view.arriving.len()), (4, 0));
    assert!(!host.volume.path().join("gone").exists());
    full("two");
    // What cannot be had without space changes nothing.
    let before = host.listing();
    let pin = host.machinectl(&["pin", "linux", "2"], b"");
    assert!(pin.code == Some(0) || host.listing() == before, "{pin:?}");
    let back = host.machinectl(&["rollback", "linux", "3"], b"");
    assert!(back.code == Some(0) || host.listing() == before, "{back:?}");
    println!("pin: {:?}, rollback: {:?}", pin.code, back.code);
    for (verb, revision) in [("unpin", "2"), ("rollback", "4")] {
        host.machinectl(&[verb, "linux", revision], b"").success();
    }
    host.machinectl(&["prune", "--keep", "1"], b"").success();
    assert_eq!(host.look("linux").revisions.len(), 1);
    full("three");
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(!host.volume.path().join("linux").exists());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn space_is_given_back_when_no_byte_is_free() {
    let host = host();
    gives_space_back(&host, &[1 << 20, 64 << 10, 4096]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn space_is_given_back_when_the_metadata_is_full() {
    let host = host();
    // Small files live in the metadata itself.
    gives_space_back(&host, &[1 << 20, 2000, 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_machine_without_a_link_is_deleted_from_a_full_disk() {
    let host = host();
    fs::remove_file(host.volume.path().join("linux/linux")).unwrap();
    fill(&host.mount.path().join("ballast"), &[1 << 20, 2000, 0]);
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(!host.volume.path().join("linux").exists());
}
