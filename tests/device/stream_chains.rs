//! Random changes of a machine, sent between three hosts by full and incremental streams, directly
//! and over another host: the content of a received revision is always as recorded.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::store::{Intent, Source, Uuid, Volume};
use config::MachineName;
use rustix::fs::{FallocateFlags, fallocate};
use tests::hosts::BuildHost;
use tests::random::Xorshift;
use tests::write_file;

/// The largest size of a file, in bytes: several blocks of a content manifest.
const DISK: u64 = 6 << 20;

/// Makes a random change in a directory. A change that is impossible has no effect.
fn change(work: &Path, random: &mut Xorshift) {
    let one = work.join(random.below(12).to_string());
    let other = work.join(random.below(12).to_string());
    match random.below(13) {
        0..=2 if !one.is_dir() => {
            write_file(&one, &format!("{} ", random.below(1 << 40)).repeat(3000));
        }
        3 => drop(fs::remove_file(&one)),
        4 => drop(fs::rename(&one, &other)),
        5 => drop(fs::create_dir(&one)),
        6 => drop(symlink("some/where else", &one)),
        7 => drop(chown(
            &one,
            Some(u32::try_from(random.below(5)).unwrap()),
            None,
        )),
        8 => drop(fs::set_permissions(&one, fs::Permissions::from_mode(0o600))),
        9 => change_blocks(&one, random),
        10 => drop(
            File::options()
                .write(true)
                .open(&one)
                .map(|it| it.set_len(random.below(DISK))),
        ),
        11 => drop(clone_file(&one, &other)),
        _ => drop(fs::hard_link(&one, &other)),
    }
}

/// Writes into a disk, or punches a hole in it.
fn change_blocks(disk: &Path, random: &mut Xorshift) {
    let options = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(disk);
    let Ok(disk) = options else {
        return;
    };
    let (position, length) = (random.below(DISK), 1 + random.below(DISK / 4));
    if random.below(3) == 0 {
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&disk, mode, position, length).unwrap();
    } else {
        let bytes = random.bytes(usize::try_from(length).unwrap() / 64);
        disk.write_all_at(&bytes, position).unwrap();
    }
}

fn clone_file(from: &Path, to: &Path) -> io::Result<()> {
    let from = File::open(from)?;
    let to = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)?;
    Ok(rustix::fs::ioctl_ficlone(to, from)?)
}

fn current(volume: &Volume, machine: &MachineName) -> Option<u32> {
    volume.view(machine).ok()?.current.map(|it| it.0)
}

/// Returns the UUIDs by which a stream can refer to the revisions of a machine.
fn identities(volume: &Volume, machine: &MachineName) -> Vec<Uuid> {
    let view = volume.view(machine);
    let revisions = view.into_iter().flat_map(|view| view.revisions);
    revisions
        .flat_map(|it| [Some(it.uuid), it.received_uuid])
        .flatten()
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn content_is_preserved_along_every_chain_of_streams() {
    let rounds = if tests::is_long_run() { 100 } else { 12 };
    let hosts = [512, 512, 512].map(BuildHost::new);
    let machine: MachineName = "linux".parse().unwrap();
    let work = hosts[0].mount.path().join("work");
    BtrfsBackend.create(&work).unwrap();
    let mut random = Xorshift::new(0x5eed);
    let (mut full, mut incremental) = (0, 0);
    for round in 0..rounds {
        for _ in 0..=random.below(8) {
            change(&work, &mut random);
        }
        let intent = if round == 0 {
            Intent::Add
        } else {
            Intent::Upgrade
        };
        let source = Source::working_subvolume(work.clone());
        hosts[0].volume.ingest(intent, &machine, source).unwrap();
        for _ in 0..2 {
            // The first host makes revisions, the others forward them.
            let routes = [(0, 1), (0, 2), (1, 2), (2, 1)];
            let (from, to) = routes[random.index(routes.len())];
            let (from, to) = (&hosts[from].volume, &hosts[to].volume);
            let (sent, existing) = (current(from, &machine), current(to, &machine));
            if sent <= existing {
                continue;
            }
            let known = if random.below(3) == 0 {
                Vec::new()
            } else {
                identities(to, &machine)
            };
            let outgoing = from.send(&machine, None, &known).unwrap();
            *if outgoing.parent.is_some() {
                &mut incremental
            } else {
                &mut full
            } += 1;
            let intent = if existing.is_some() {
                Intent::Upgrade
            } else {
                Intent::Add
            };
            to.ingest(intent, &machine, Source::Stream(outgoing.stream))
                .unwrap();
            to.verify(&machine, None).unwrap();
            assert_eq!(current(to, &machine), sent, "round {round}");
        }
    }
    for host in &hosts {
        for revision in host.view("linux").revisions {
            host.volume
                .verify(&machine, Some(revision.revision))
                .unwrap();
        }
    }
    println!("{full} full and {incremental} incremental streams over three volumes");
    assert!(full > 1 && incremental > 1, "{full} {incremental}");
}
