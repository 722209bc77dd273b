//! Full disks: what gives space back works without any.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use ::store::Pool;
use ::store::pool::BtrfsPool;
use tests::shell::{BuildHost, DevelopmentHost};

fn host() -> Option<BuildHost> {
    if !tests::may_use_devices() {
        return None;
    }
    let (host, development) = (BuildHost::new(128), DevelopmentHost::new(256));
    for number in 1..=4_u8 {
        let name = format!("linux-{number}");
        development.image(&name, None, &[("disk.img", &vec![number; 2 << 20])]);
        let verb = if number == 1 { "add" } else { "upgrade" };
        host.machinectl(&[verb, "linux"], &development.send(&name, None))
            .good();
    }
    let linux = host.volume.path().join("linux");
    BtrfsPool
        .snapshot(&linux.join("linux-1"), &linux.join("linux-default-1"))
        .unwrap();
    Some(host)
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

fn gives_space_back(host: &BuildHost) {
    host.machinectl(&["doctor", "--repair"], b"").good();
    assert!(host.look("linux").snapshots.is_empty());
    host.machinectl(&["prune", "--keep", "1"], b"").good();
    assert_eq!(host.look("linux").revisions.len(), 1);
    host.machinectl(&["delete", "linux"], b"").good();
    assert!(!host.volume.path().join("linux").exists());
}

#[test]
fn space_is_given_back_when_no_byte_is_free() {
    let Some(host) = host() else { return };
    fill(
        &host.mount.path().join("ballast"),
        &[1 << 20, 64 << 10, 4096],
    );
    assert!(host.volume.free().unwrap() < 1 << 20);
    gives_space_back(&host);
}

#[test]
fn space_is_given_back_when_the_metadata_is_full() {
    let Some(host) = host() else { return };
    // Small files live in the metadata itself.
    fill(&host.mount.path().join("ballast"), &[1 << 20, 2000, 0]);
    gives_space_back(&host);
}

#[test]
fn a_machine_without_a_link_is_deleted_from_a_full_disk() {
    let Some(host) = host() else { return };
    fs::remove_file(host.volume.path().join("linux/linux")).unwrap();
    fill(&host.mount.path().join("ballast"), &[1 << 20, 2000, 0]);
    host.machinectl(&["delete", "linux"], b"").good();
    assert!(!host.volume.path().join("linux").exists());
}
