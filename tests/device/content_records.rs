//! The records of the content of revisions that have no content manifest, on real btrfs.

use std::fs;
use std::path::{Path, PathBuf};

use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use serde_json::Value;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::write_file;

/// Returns a host whose machine `linux` has a received revision without a content manifest, and
/// the sender.
fn received() -> (BuildHost, DevelopmentHost) {
    let (host, development) = (BuildHost::new(256), DevelopmentHost::new(256));
    let disk = vec![1; 300_000];
    development.image(
        "linux-1",
        None,
        &[("disk.img", &disk), ("kernel", b"kernel")],
    );
    let stream = development.send("linux-1", None);
    host.machinectl(&["add", "linux"], &stream).success();
    (host, development)
}

fn entry(host: &BuildHost, name: &str) -> PathBuf {
    host.volume.path().join("linux").join(name)
}

/// Changes a complete revision, as an administrator could.
fn tamper(host: &BuildHost, name: &str, change: impl Fn(&Path)) {
    let revision = entry(host, name);
    libbtrfsutil::set_subvolume_read_only(&revision, false).unwrap();
    change(&revision);
    libbtrfsutil::set_subvolume_read_only(&revision, true).unwrap();
}

/// Returns the revisions of `linux` whose content is known from a record.
fn recorded(host: &BuildHost) -> Vec<u64> {
    let status = host.machinectl(&["status", "linux", "--json"], b"");
    let status: Value = serde_json::from_str(&status.success().stdout).unwrap();
    let revisions = status["revisions"].as_array().unwrap().iter();
    let recorded = revisions.filter(|it| it["content_recorded"] == true);
    recorded
        .map(|it| it["revision"].as_u64().unwrap())
        .collect()
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_recorded_revision_is_verified_and_its_changes_are_named() {
    let (host, _development) = received();
    let before = host.view("linux");
    host.machinectl(&["verify", "linux"], b"").refused(
        3,
        "revision 1 of `linux` has no content manifest; `buildhost record linux 1` records its content",
    );
    assert_eq!(recorded(&host), [0_u64; 0]);
    let record = |options: &[&str]| host.machinectl(&[&["record", "linux"], options].concat(), b"");
    let done = "linux: recorded the content of revision 1: 3 files, 0 MiB\n";
    assert_eq!(record(&[]).success().stderr, done);
    assert_eq!(
        record(&["1"]).success().stderr,
        "linux: the content of revision 1 is recorded already\n"
    );
    assert_eq!(recorded(&host), [1]);
    // The next incremental stream finds its parent as it was received.
    let after = host.view("linux");
    assert_eq!(after.revisions, before.revisions);
    let verified = host.machinectl(&["verify", "linux"], b"").success();
    assert!(
        verified
            .stderr
            .ends_with("all match the content that was recorded here\n"),
        "{verified:?}"
    );

    tamper(&host, "linux-1", |it| {
        write_file(&it.join("kernel"), "Kernel");
    });
    assert_eq!(recorded(&host), [0_u64; 0]);
    host.machinectl(&["verify", "linux"], b"").refused(
        23,
        "differs from its record: `kernel` has another content; the revision was made writable and changed after it was recorded",
    );
    let outdated = "revision 1 of `linux` was changed after its content was recorded; \
                    `buildhost verify linux 1` names the changes, and \
                    `buildhost record linux 1 --again` accepts them";
    record(&[]).refused(3, outdated);
    host.machinectl(&["diff", "linux", "1", "1"], b"")
        .refused(3, outdated);
    assert_eq!(record(&["--again"]).success().stderr, done);
    host.machinectl(&["verify", "linux"], b"").success();
    assert_eq!(recorded(&host), [1]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn recorded_revisions_are_compared_with_others() {
    let (host, development) = received();
    development.image("linux-2", Some("linux-1"), &[("kernel", b"another")]);
    let stream = development.send("linux-2", Some("linux-1"));
    let upgrade = ["upgrade", "linux", "--record", "--json"];
    let upgraded = host.machinectl(&upgrade, &stream).success();
    let answer: Value = serde_json::from_str(&upgraded.stdout).unwrap();
    let known = (&answer["content_manifest"], &answer["content_recorded"]);
    assert_eq!(known, (&false.into(), &true.into()));
    assert_eq!(recorded(&host), [2]);
    host.machinectl(&["diff", "linux", "1", "2"], b"").refused(
        3,
        "revision 1 of `linux` has no content manifest; `buildhost record linux 1`",
    );
    host.machinectl(&["record", "linux", "1"], b"").success();
    let tree = host.mount.directory("tree");
    write_file(&tree.join("manifest"), ": 1\nid: linux\nsummary: Linux\n");
    fs::copy(entry(&host, "linux-2/disk.img"), tree.join("disk.img")).unwrap();
    host.machinectl(&["import", "linux", tree.to_str().unwrap()], b"")
        .success();
    assert_eq!(
        host.machinectl(&["record", "linux"], b"").success().stderr,
        "linux: revision 3 has a content manifest, so there is nothing to record\n"
    );
    assert_eq!(recorded(&host), [1, 2]);
    for (older, newer, changes) in [
        ("1", "2", vec![("kernel", "changed")]),
        ("2", "3", vec![("kernel", "missing"), ("manifest", "added")]),
    ] {
        let diff = host.machinectl(&["diff", "linux", older, newer, "--json"], b"");
        assert_eq!(diff.code, Some(23), "{diff:?}");
        let found: Value = serde_json::from_str(&diff.stdout).unwrap();
        let found = found["differences"].as_array().unwrap().iter();
        let texts = |it| {
            let text = |key: &str| Value::as_str(&Value::clone(it)[key]).unwrap().to_owned();
            (text("name"), text("change"))
        };
        let found: Vec<_> = found.map(texts).filter(|(name, _)| name != ".").collect();
        let changes = changes.into_iter();
        let changes: Vec<_> = changes
            .map(|(name, change)| (name.to_owned(), change.to_owned()))
            .collect();
        assert_eq!(found, changes, "{older} {newer}");
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_record_is_deleted_with_its_revision() {
    let (host, development) = received();
    host.machinectl(&["record", "linux"], b"").success();
    let record = entry(&host, ".buildhost.contents-1");
    assert!(record.is_file());
    development.image("linux-2", Some("linux-1"), &[("kernel", b"another")]);
    let stream = development.send("linux-2", Some("linux-1"));
    let upgrade = ["upgrade", "linux", "--record", "--keep", "1"];
    host.machinectl(&upgrade, &stream).success();
    assert!(!record.exists());
    assert_eq!(recorded(&host), [2]);
    // A person deletes a revision and makes another one of the same number.
    let revision = entry(&host, "linux-2");
    BtrfsBackend.delete(&revision).unwrap();
    BtrfsBackend.create(&revision).unwrap();
    BtrfsBackend.make_read_only(&revision).unwrap();
    assert_eq!(recorded(&host), [0_u64; 0]);
    host.machinectl(&["verify", "linux"], b"")
        .refused(3, "has no content manifest");
    host.machinectl(&["record", "linux"], b"").success();
    host.machinectl(&["verify", "linux"], b"").success();
    assert_eq!(recorded(&host), [2]);
    host.machinectl(&["delete", "linux"], b"").success();
    assert!(!host.volume.path().join("linux").exists());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn only_content_that_cannot_change_is_recorded() {
    let (host, _development) = received();
    host.machinectl(&["record", "linux", "2"], b"")
        .refused(10, "has no complete revision 2");
    let revision = entry(&host, "linux-2");
    BtrfsBackend
        .snapshot(&entry(&host, "linux-1"), &revision)
        .unwrap();
    let record = || host.machinectl(&["record", "linux", "2"], b"");
    let remedy = format!("btrfs property set {} ro true", revision.display());
    record().refused(3, &remedy);
    let mark = entry(&host, ".buildhost.arriving-2");
    std::os::unix::fs::symlink("linux-2", &mark).unwrap();
    record().refused(3, "revision 2 of `linux` is not complete");
    BtrfsBackend.make_read_only(&revision).unwrap();
    record().refused(3, "revision 2 of `linux` is not complete");
    fs::remove_file(&mark).unwrap();
    record().success();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_damaged_record_is_named_and_replaced() {
    let (host, _development) = received();
    host.machinectl(&["record", "linux"], b"").success();
    let record = entry(&host, ".buildhost.contents-1");
    let text = fs::read_to_string(&record).unwrap();
    assert!(text.starts_with("buildhost record 1 "), "{text}");
    write_file(&record, &text[..text.len() - 9]);
    assert_eq!(recorded(&host), [0_u64; 0]);
    for call in [&["verify", "linux"][..], &["diff", "linux", "1", "1"]] {
        host.machinectl(call, b"").refused(
            3,
            ".buildhost.contents-1` cannot be parsed; `buildhost record linux 1` writes it again",
        );
    }
    host.machinectl(&["record", "linux"], b"").success();
    assert_eq!(fs::read_to_string(&record).unwrap(), text);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_record_counts_for_no_other_host() {
    let (host, _development) = received();
    let identities = || host.volume.content_identities(&host.view("linux"));
    let before = identities();
    host.machinectl(&["record", "linux"], b"").success();
    assert_eq!(identities(), before);
    let receiver = BuildHost::new(256);
    let outgoing = host
        .volume
        .send_to(2, &"linux".parse().unwrap(), None, &[])
        .unwrap();
    let mut stream = Vec::new();
    outgoing.stream.copy_to(&mut stream).unwrap();
    let added = receiver.machinectl(&["add", "linux"], &stream).success();
    assert!(
        added.stderr.ends_with(
            "revision 1 has no content manifest, so its content is not verified here; \
             `buildhost record linux 1` records it\n"
        ),
        "{added:?}"
    );
    assert_eq!(recorded(&receiver), [0_u64; 0]);
}
