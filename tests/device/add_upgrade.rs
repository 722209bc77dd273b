//! `machinectl add` and `upgrade` on real btrfs.

use std::fs;

use tests::hosts::{BuildHost, DevelopmentHost};

/// Returns a build host without machines and a development host with two images of `linux`.
fn hosts() -> (BuildHost, DevelopmentHost) {
    let development = DevelopmentHost::new(512);
    development.image(
        "linux-1",
        None,
        &[("disk.img", &vec![1; 300_000]), ("manifest", b": 1\n")],
    );
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", &vec![2; 300_000])],
    );
    (BuildHost::new(512), development)
}

fn content(host: &BuildHost, path: &str) -> Vec<u8> {
    fs::read(host.volume.path().join(path)).unwrap()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn streams_add_and_upgrade_a_machine() {
    let (host, development) = hosts();
    let answer = host
        .machinectl(&["add", "linux"], &development.send("linux-1", None))
        .success();
    assert_eq!(
        answer.stderr,
        "linux: revision 1 is now current\n\
         linux: revision 1 has no content manifest, so its content is not verified here; \
         `buildhost record linux 1` records it\n"
    );
    assert_eq!(content(&host, "linux/linux/disk.img"), vec![1; 300_000]);

    // An incremental stream, then a full one with a gap in the revisions.
    let stream = development.send("linux-2", Some("linux-1"));
    host.machinectl(&["upgrade", "linux", "--from", "-"], &stream)
        .success();
    assert_eq!(content(&host, "linux/linux/disk.img"), vec![2; 300_000]);
    development.image("linux-7", Some("linux-2"), &[("more", b"m")]);
    let answer = host.machinectl(
        &["upgrade", "linux", "--json"],
        &development.send("linux-7", None),
    );
    let json: serde_json::Value = serde_json::from_str(&answer.success().stdout).unwrap();
    assert_eq!((&json["current"], &json["before"]), (&7.into(), &2.into()));

    let view = host.view("linux");
    assert_eq!(view.current.map(|revision| revision.0), Some(7));
    assert_eq!(view.revisions.len(), 3);
    assert!(
        view.revisions
            .iter()
            .all(|it| it.complete && it.received_uuid.is_some())
    );
    assert!(!view.incoming && view.unmanaged.is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn refused_streams_have_an_exit_code_and_change_nothing() {
    let (host, development) = hosts();
    let (one, two) = (
        development.send("linux-1", None),
        development.send("linux-2", None),
    );
    let incremental = development.send("linux-2", Some("linux-1"));

    let empty = host.listing();
    assert!(empty.is_empty());
    let add = |name, input: &[u8]| host.machinectl(&["add", name], input);
    let upgrade = |name, input: &[u8]| host.machinectl(&["upgrade", name], input);
    add("other", &one).refused(13, "the stream is named `linux-1`");
    add("linux", b"").refused(14, "the stream is empty");
    add("linux", b"nonsense that is long enough").refused(14, "no `btrfs send` stream");
    add("linux", &one[..one.len() / 2]).refused(14, "ends too early");
    add("linux", &one[..one.len() - 1]).refused(14, "ends too early");
    add("linux", &incremental).refused(15, "send it in full");
    upgrade("linux", &one).refused(10, "there is no machine `linux`");
    assert_eq!(host.listing(), empty);

    add("linux", &two).success();
    let with_two = host.listing();
    add("linux", &one).refused(11, "machine `linux` already exists");
    upgrade("linux", &one).refused(12, "revision 1 is not newer than revision 2");
    upgrade("linux", &two).refused(12, "revision 2 is not newer than revision 2");
    development.image("linux-3", Some("linux-2"), &[("x", b"x")]);
    let three = development.send("linux-3", None);
    upgrade("linux", &three[..three.len() - 20]).refused(14, "ends too early");
    upgrade("linux", &development.send("linux-3", Some("linux-1")))
        .refused(15, "does not exist here");
    let missing = host.volume.path().join("missing");
    host.machinectl(
        &["upgrade", "linux", "--from", missing.to_str().unwrap()],
        b"",
    )
    .refused(1, "No such file");
    assert_eq!(host.listing(), with_two);
}

/// A verb and its input.
type Ingest = (&'static str, Vec<u8>);

/// Returns a host, and a small full and a small incremental stream for it.
fn host_and_small_streams() -> (BuildHost, [Ingest; 2]) {
    let (host, development) = hosts();
    development.image("small-1", None, &[("a", b"a"), ("b", b"b")]);
    let two: [(&str, &[u8]); 2] = [("a", &[7; 500]), ("c", b"c")];
    development.image("small-2", Some("small-1"), &two);
    let (one, two) = (
        development.send("small-1", None),
        development.send("small-2", Some("small-1")),
    );
    (host, [("add", one), ("upgrade", two)])
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_stream_that_is_truncated_after_any_command_is_refused() {
    let (host, streams) = host_and_small_streams();
    for (verb, stream) in streams {
        let before = host.listing();
        let mut at = 17;
        let mut cuts = Vec::new();
        while at + 10 <= stream.len() {
            cuts.push(at);
            let length = u32::from_le_bytes(stream[at..at + 4].try_into().unwrap());
            at += 10 + length as usize;
        }
        println!("{verb}: truncated after each of {} commands", cuts.len());
        assert!(cuts.len() > 10, "{}", cuts.len());
        for cut in cuts {
            host.machinectl(&[verb, "small"], &stream[..cut])
                .refused(14, "ends too early");
            assert_eq!(host.listing(), before, "truncated at {cut}");
        }
        host.machinectl(&[verb, "small"], &stream).success();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_stream_with_a_flipped_bit_is_refused() {
    let (host, streams) = host_and_small_streams();
    for (verb, stream) in streams {
        let before = host.listing();
        let step = if tests::is_long_run() { 1 } else { 41 };
        let mut flips = 0;
        for at in (0..stream.len()).step_by(step) {
            flips += 1;
            let mut damaged = stream.clone();
            damaged[at] ^= 4;
            let answer = host.machinectl(&[verb, "small"], &damaged);
            assert!(
                matches!(answer.code, Some(1 | 12 | 13 | 14 | 15)),
                "at {at}: {answer:?}"
            );
            assert_eq!(host.listing(), before, "at {at}: {answer:?}");
        }
        println!("{verb}: {flips} bits flipped in {} bytes", stream.len());
        host.machinectl(&[verb, "small"], &stream).success();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_unfinished_read_only_revision_is_neither_adopted_nor_used_as_a_parent() {
    let (host, development) = hosts();
    let one = development.send("linux-1", None);
    let two = development.send("linux-2", Some("linux-1"));
    host.machinectl(&["add", "linux"], &one).success();
    host.machinectl(&["upgrade", "linux"], &two).success();
    // The state after a power cut before the link was replaced: content may be missing.
    let directory = host.volume.path().join("linux");
    fs::remove_file(directory.join("linux")).unwrap();
    std::os::unix::fs::symlink("linux-1", directory.join("linux")).unwrap();
    let mark = directory.join(".buildhost.arriving-2");
    std::os::unix::fs::symlink("linux-2", &mark).unwrap();
    host.machinectl(&["rollback", "linux", "2"], b"")
        .refused(10, "no complete revision 2");
    development.image("linux-3", Some("linux-2"), &[("x", b"x")]);
    let three = development.send("linux-3", Some("linux-2"));
    host.machinectl(&["upgrade", "linux"], &three)
        .refused(15, "does not exist here");
    let answer = host.machinectl(&["upgrade", "linux"], &two).success();
    assert!(
        answer.stderr.contains("replaces an incomplete revision"),
        "{answer:?}"
    );
    assert!(!mark.is_symlink());
    host.machinectl(&["upgrade", "linux"], &three).success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_full_disk_leaves_the_machine_as_it_was() {
    let (host, development) = (BuildHost::new(128), DevelopmentHost::new(512));
    development.image("big-1", None, &[("disk.img", &[1; 1000])]);
    // The content must not compress.
    let noise: Vec<u8> = (0..120_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    development.image("big-2", Some("big-1"), &[("disk.img", &noise)]);
    host.machinectl(&["add", "big"], &development.send("big-1", None))
        .success();
    let before = host.listing();
    let stream = development.send("big-2", Some("big-1"));
    host.machinectl(&["upgrade", "big"], &stream)
        .refused(16, "is full");
    assert_eq!(host.listing(), before);
    host.machinectl(&["delete", "big"], b"").success();
    assert!(host.listing().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_incomplete_revision_is_recreated_and_a_complete_one_is_adopted() {
    let (host, development) = hosts();
    let (one, two) = (
        development.send("linux-1", None),
        development.send("linux-2", None),
    );
    // The state after a killed receive: a writable revision with a mark.
    let directory = host.volume.path().join("linux");
    fs::create_dir(&directory).unwrap();
    ::store::SubvolumeBackend::create(
        &::store::subvolumes::BtrfsBackend,
        &directory.join("linux-1"),
    )
    .unwrap();
    std::os::unix::fs::symlink("linux-1", directory.join(".buildhost.arriving-1")).unwrap();
    let answer = host.machinectl(&["add", "linux"], &one).success();
    assert!(
        answer.stderr.contains("replaces an incomplete revision"),
        "{answer:?}"
    );

    // The state after an upgrade that was killed before it renamed the link.
    host.machinectl(&["upgrade", "linux"], &two).success();
    fs::remove_file(directory.join("linux")).unwrap();
    std::os::unix::fs::symlink("linux-1", directory.join("linux")).unwrap();
    std::os::unix::fs::symlink("linux-2", directory.join(".buildhost.new")).unwrap();
    let answer = host.machinectl(&["upgrade", "linux"], &two).success();
    assert!(
        answer.stderr.contains("only its link is missing"),
        "{answer:?}"
    );
    assert_eq!(host.view("linux").current.map(|it| it.0), Some(2));
    assert!(!host.view("linux").incoming);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_subvolume_is_snapshotted_on_the_volume_and_sent_from_another_file_system() {
    let (host, development) = hosts();
    let image = development.path("linux-1");
    host.machinectl(&["add", "linux", "--from", image.to_str().unwrap()], b"")
        .success();
    assert!(host.view("linux").revisions[0].received_uuid.is_some());

    let work = host.mount.path().join("work");
    ::store::SubvolumeBackend::create(&::store::subvolumes::BtrfsBackend, &work).unwrap();
    fs::create_dir(work.join("inside")).unwrap();
    let work = work.to_str().unwrap();
    let answer = host
        .machinectl(&["upgrade", "linux", "--from", work, "--dry-run"], b"")
        .success();
    assert!(
        answer
            .stdout
            .contains("would make revision 2 of linux current instead of 1"),
        "{answer:?}"
    );
    assert_eq!(host.view("linux").revisions.len(), 1);
    host.machinectl(&["upgrade", "linux", "--from", work], b"")
        .success();
    assert!(host.volume.path().join("linux/linux-2/inside").is_dir());

    let plain = host.mount.directory("plain");
    host.machinectl(
        &["upgrade", "linux", "--from", plain.to_str().unwrap()],
        b"",
    )
    .refused(3, "is not a subvolume");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_that_was_made_writable_is_not_used_as_a_parent() {
    let (host, development) = hosts();
    host.machinectl(&["add", "linux"], &development.send("linux-1", None))
        .success();
    host.machinectl(&["upgrade", "linux"], &development.send("linux-2", None))
        .success();
    // The ioctl keeps the received identity, although the content may change.
    let revision = host.volume.path().join("linux/linux-1");
    libbtrfsutil::set_subvolume_read_only(&revision, false).unwrap();
    development.image("linux-3", Some("linux-1"), &[("x", b"x")]);
    let stream = development.send("linux-3", Some("linux-1"));
    host.machinectl(&["upgrade", "linux"], &stream)
        .refused(15, "has been made writable");

    // It is not replaced either, even if the link leads to it.
    let link = host.volume.path().join("linux/linux");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("linux-1", &link).unwrap();
    host.machinectl(&["upgrade", "linux"], &development.send("linux-1", None))
        .refused(10, "which is not complete");
}
