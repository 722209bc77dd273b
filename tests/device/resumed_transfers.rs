//! Transfers that are cut at any point, and continued: the revision is the same as after a transfer
//! in one piece.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use ::store::stream::{SendStream, TimeoutReader};
use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::store::{Intent, RefusalKind, Source, StoreError, Volume};
use config::{MachineName, Revision};
use tests::hosts::BuildHost;
use tests::random::Xorshift;

/// A sender with two revisions of a machine.
struct Sender {
    host: BuildHost,
    machine: MachineName,
}

impl Sender {
    fn new() -> Self {
        let sender = Self {
            host: BuildHost::new(512),
            machine: "linux".parse().unwrap(),
        };
        let work = sender.host.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        let mut random = Xorshift::new(7);
        fs::create_dir(work.join("etc")).unwrap();
        for name in ["disk.img", "etc/one", "etc/two"] {
            let file = File::create_new(work.join(name)).unwrap();
            file.write_all_at(&random.bytes(300_000), 1 << 20).unwrap();
        }
        symlink("etc", work.join("link")).unwrap();
        sender.add(Intent::Add, &work);
        fs::hard_link(work.join("etc/one"), work.join("three")).unwrap();
        fs::remove_file(work.join("etc/two")).unwrap();
        fs::rename(work.join("etc"), work.join("usr")).unwrap();
        File::options()
            .write(true)
            .open(work.join("disk.img"))
            .unwrap()
            .write_all_at(&random.bytes(200_000), 9000)
            .unwrap();
        rustix::fs::ioctl_ficlone(
            File::create_new(work.join("clone")).unwrap(),
            File::open(work.join("disk.img")).unwrap(),
        )
        .unwrap();
        sender.add(Intent::Upgrade, &work);
        sender
    }

    fn add(&self, intent: Intent, work: &Path) {
        let source = Source::working_subvolume(work.to_owned());
        self.host
            .volume
            .ingest(intent, &self.machine, source)
            .unwrap();
    }

    /// Returns the stream of a revision on top of what a receiver has.
    fn stream(&self, revision: u32, receiver: &Volume) -> SendStream {
        let view = receiver.view(&self.machine);
        let known = view.into_iter().flat_map(|it| it.revisions);
        let known: Vec<_> = known.map(|it| it.subvolume.stream_uuid()).collect();
        let revision = Some(Revision(revision));
        let outgoing = self.host.volume.send_to(2, &self.machine, revision, &known);
        outgoing.unwrap().stream
    }

    /// Returns the bytes that are left to send of a revision, after what the receiver has of it.
    fn rest(&self, revision: u32, receiver: &Volume) -> Vec<u8> {
        let mut stream = self.stream(revision, receiver);
        let view = receiver.view(&self.machine).ok();
        if let Some(partial) = view.and_then(|it| receiver.partial_revision(&it)) {
            assert!(
                stream.skip(&partial.parts).unwrap(),
                "the stream is the same as before"
            );
        }
        let mut bytes = Vec::new();
        stream.copy_to(&mut bytes).unwrap();
        bytes
    }

    /// Sends these bytes to a receiver, which continues what it has.
    fn send(&self, revision: u32, bytes: &[u8], receiver: &Volume) -> Result<(), StoreError> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let input = TimeoutReader::pipe(reader).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(writer.write_all(bytes)));
            let view = receiver.view(&self.machine).ok();
            let stream = match view.and_then(|it| receiver.partial_revision(&it)) {
                Some(partial) => receiver.resume(&self.machine, &partial, None, input)?,
                None => SendStream::open(input)?.resumable(),
            };
            let intent = match revision {
                1 => Intent::Add,
                _ => Intent::Upgrade,
            };
            receiver.ingest(intent, &self.machine, Source::Stream(stream))?;
            Ok(())
        })
    }
}

/// Returns the times and properties of all entries, and the content of files.
fn state(directory: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut state = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        let data = path.symlink_metadata().unwrap();
        let content = match &data {
            it if it.is_file() => fs::read(&path).unwrap(),
            it if it.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let properties = (
            data.mode(),
            data.size(),
            data.blocks(),
            data.mtime(),
            data.mtime_nsec(),
        );
        let name = path.strip_prefix(directory).unwrap().display().to_string();
        state.insert(name, (format!("{properties:?}"), content));
        if data.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
        }
    }
    state
}

fn assert_same(sender: &Sender, receiver: &Volume, revision: u32) {
    let name = format!("linux/linux-{revision}");
    let expected = state(&sender.host.volume.path().join(&name));
    assert_eq!(state(&receiver.path().join(&name)), expected);
    receiver
        .verify(&sender.machine, Some(Revision(revision)))
        .unwrap();
}

/// Returns the entries of the machine's directory on the receiver, except its revisions and their
/// notes.
fn remains(receiver: &BuildHost) -> Vec<String> {
    let listing = receiver.listing().into_iter();
    listing
        .filter(|it| it.contains(".buildhost.partial"))
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_transfer_that_is_cut_anywhere_continues_behind_what_has_arrived() {
    let sender = Sender::new();
    let mut random = Xorshift::new(0xcafe);
    let rounds = if tests::is_long_run() { 60 } else { 6 };
    for _ in 0..rounds {
        let receiver = BuildHost::new(256);
        let volume = &receiver.volume;
        for revision in [1, 2] {
            let whole = sender.rest(revision, volume).len();
            let mut cuts = 0;
            loop {
                let rest = sender.rest(revision, volume);
                let length = random.index(rest.len() + rest.len() / 3 + 1);
                match sender.send(revision, &rest[..length.min(rest.len())], volume) {
                    Ok(()) => break,
                    Err(error) => assert_eq!(error.kind(), Some(RefusalKind::BadStream), "{error}"),
                }
                cuts += 1;
                let left = sender.rest(revision, volume).len();
                assert!(
                    left <= rest.len(),
                    "cut {cuts}: {left} of {whole} bytes are left"
                );
                assert_eq!(
                    receiver.view("linux").revisions.len(),
                    revision as usize - 1
                );
            }
            assert_same(&sender, volume, revision);
            assert_eq!(remains(&receiver), Vec::<String>::new());
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_slow_transfer_is_received_in_parts_of_any_length() {
    let sender = Sender::new();
    let receiver = BuildHost::new(256);
    // Each command is a part.
    let volume = receiver.volume.clone().with_part_duration(Duration::ZERO);
    for revision in [1, 2] {
        let rest = sender.rest(revision, &volume);
        sender.send(revision, &rest, &volume).unwrap();
        assert_same(&sender, &volume, revision);
    }
    assert_eq!(remains(&receiver), Vec::<String>::new());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_has_arrived_is_used_only_if_neither_end_has_changed() {
    let sender = Sender::new();
    let receiver = BuildHost::new(256);
    let volume = &receiver.volume;
    let cut = |revision| {
        let rest = sender.rest(revision, volume);
        let cut = sender.send(revision, &rest[..rest.len() / 2], volume);
        assert_eq!(cut.unwrap_err().kind(), Some(RefusalKind::BadStream));
        let view = volume.view(&sender.machine).unwrap();
        volume.partial_revision(&view).unwrap()
    };

    // Another sender's stream has another beginning.
    let partial = cut(1);
    let mut parts = partial.parts.clone();
    parts[0].hash = "0".repeat(64);
    assert!(!sender.stream(1, volume).skip(&parts).unwrap());
    parts[0] = partial.parts[0].clone();
    parts[0].length = u64::MAX;
    assert!(!sender.stream(1, volume).skip(&parts).unwrap());

    // A person has changed what has arrived.
    let path = receiver.volume.path().join("linux/.buildhost.partial-1");
    libbtrfsutil::set_subvolume_read_only(&path, false).unwrap();
    let view = volume.view(&sender.machine).unwrap();
    assert_eq!(volume.partial_revision(&view), None);
    let rest = sender.rest(1, volume);
    sender.send(1, &rest, volume).unwrap();
    assert_same(&sender, volume, 1);
    assert_eq!(remains(&receiver), Vec::<String>::new());

    // A stream from its beginning replaces what has arrived, and a deletion deletes it.
    cut(2);
    let bytes = {
        let mut bytes = Vec::new();
        sender.stream(2, volume).copy_to(&mut bytes).unwrap();
        bytes
    };
    receiver.machinectl(&["upgrade", "linux"], &bytes).success();
    assert_same(&sender, volume, 2);
    assert_eq!(remains(&receiver), Vec::<String>::new());
    receiver.machinectl(&["delete", "linux"], b"").success();
    cut(1);
    receiver.machinectl(&["delete", "linux"], b"").success();
    assert_eq!(receiver.listing(), Vec::<String>::new());
}
