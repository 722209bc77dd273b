//! Content manifests on real btrfs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::store::{Intent, Source};
use rustix::fs::{FileType, lremovexattr};
use tests::attacks::refused;
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::special_files::{
    ACL, CAPABILITY, DEFAULT_ACL, acl, capability, make_node, set_attribute,
};
use tests::write_file;

/// Makes the image of a machine with entries of many kinds.
fn make_image(path: &Path) {
    BtrfsBackend.create(path).unwrap();
    write_file(&path.join("manifest"), ": 1\nid: x\nsummary: y\n");
    write_file(&path.join("disk.img"), "disk");
    let bin = path.join("root/bin");
    fs::create_dir_all(&bin).unwrap();
    for name in ["ping", "sh", "shared"] {
        write_file(&bin.join(name), name);
    }
    std::os::unix::fs::symlink("sh", bin.join("link")).unwrap();
    set_attribute(&bin.join("ping"), CAPABILITY, &capability(1 << 13));
    set_attribute(&bin.join("shared"), ACL, &acl(1000, 4));
    set_attribute(&bin, DEFAULT_ACL, &acl(1000, 4));
    set_attribute(&bin.join("sh"), "user.note", b"one");
    set_attribute(&bin.join("link"), "trusted.note", b"one");
    make_node(&path.join("root/null"), FileType::CharacterDevice, (1, 3));
    make_node(&path.join("root/disk"), FileType::BlockDevice, (8, 0));
}

/// Changes a complete revision, as an administrator could.
fn tamper(revision: &Path, change: impl Fn(&Path)) {
    libbtrfsutil::set_subvolume_read_only(revision, false).unwrap();
    change(revision);
    libbtrfsutil::set_subvolume_read_only(revision, true).unwrap();
}

/// A change below `root`, and its description.
type Tampering = (fn(&Path), &'static str);

/// The changes below `root` that an administrator or a disk could make, and their descriptions.
const CHANGES: [Tampering; 17] = [
    (
        |root| lremovexattr(root.join("bin/ping"), CAPABILITY).unwrap(),
        "`root/bin/ping` lacks its capability",
    ),
    (
        |root| set_attribute(&root.join("bin/ping"), CAPABILITY, &capability(1 << 21)),
        "`root/bin/ping` has another capability",
    ),
    (
        |root| set_attribute(&root.join("bin/sh"), CAPABILITY, &capability(1)),
        "`root/bin/sh` has an unrecorded capability",
    ),
    (
        |root| {
            fs::remove_file(root.join("null")).unwrap();
            make_node(&root.join("null"), FileType::CharacterDevice, (1, 1));
        },
        "`root/null` has another device number",
    ),
    (
        |root| {
            fs::remove_file(root.join("disk")).unwrap();
            make_node(&root.join("disk"), FileType::BlockDevice, (8, 1));
        },
        "`root/disk` has another device number",
    ),
    (
        |root| {
            fs::remove_file(root.join("null")).unwrap();
            make_node(&root.join("null"), FileType::BlockDevice, (1, 3));
        },
        "`root/null` has another file type",
    ),
    (
        |root| {
            fs::remove_file(root.join("null")).unwrap();
            make_node(&root.join("null"), FileType::Fifo, (0, 0));
        },
        "`root/null` has another file type",
    ),
    (
        |root| set_attribute(&root.join("bin/shared"), ACL, &acl(1001, 4)),
        "`root/bin/shared` has another ACL",
    ),
    (
        |root| set_attribute(&root.join("bin/shared"), ACL, &acl(1000, 0)),
        "`root/bin/shared` has another ACL",
    ),
    (
        |root| lremovexattr(root.join("bin"), DEFAULT_ACL).unwrap(),
        "`root/bin` lacks its default ACL",
    ),
    (
        |root| set_attribute(&root.join("bin/sh"), "user.note", b"two"),
        "`root/bin/sh` has another value of its attribute `user.note`",
    ),
    (
        |root| set_attribute(&root.join("null"), "trusted.x", b""),
        "`root/null` has an unrecorded attribute `trusted.x`",
    ),
    (
        |root| lremovexattr(root.join("bin/link"), "trusted.note").unwrap(),
        "`root/bin/link` lacks its attribute `trusted.note`",
    ),
    (
        |root| {
            fs::set_permissions(root.join("bin/sh"), Permissions::from_mode(0o4755)).unwrap();
        },
        "`root/bin/sh` has another mode",
    ),
    (
        |root| chown(root.join("bin"), Some(7), None).unwrap(),
        "`root/bin` has another owner",
    ),
    (
        |root| write_file(&root.join("bin/sh"), "x"),
        "`root/bin/sh` has another content",
    ),
    (
        |root| fs::remove_file(root.join("bin/link")).unwrap(),
        "`root/bin/link` is missing",
    ),
];

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn each_change_of_a_revision_is_named() {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    make_image(&work);
    for (index, (change, description)) in CHANGES.into_iter().enumerate() {
        let machine = format!("m{index}");
        let source = Source::working_subvolume(work.clone());
        let name = machine.parse().unwrap();
        host.volume.ingest(Intent::Add, &name, source).unwrap();
        host.machinectl(&["verify", &machine], b"").success();
        let revision = host.volume.path().join(format!("{machine}/{machine}-1"));
        tamper(&revision, |revision| change(&revision.join("root")));
        let answer = host.machinectl(&["verify", &machine], b"");
        refused("changed revision -> verify", description, &answer.stderr);
        answer.refused(23, description);
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_without_a_manifest_is_reported_on_arrival() {
    let (host, development) = (BuildHost::new(256), DevelopmentHost::new(256));
    let files: &[(&str, &[u8])] = &[("disk.img", b"disk")];
    development.image("linux-1", None, files);
    development.image("linux-2", None, files);
    let missing = "has no content manifest, so its content is not verified here";
    let add = ["add", "linux"];
    let added = host.machinectl(&add, &development.send("linux-1", None));
    assert!(added.success().stderr.contains(missing));
    let upgrade = ["upgrade", "linux", "--json"];
    let upgraded = host.machinectl(&upgrade, &development.send("linux-2", None));
    let upgraded = upgraded.success();
    assert!(upgraded.stderr.contains(missing), "{upgraded:?}");
    assert!(
        upgraded.stdout.contains("\"content_manifest\": false"),
        "{upgraded:?}"
    );
    host.machinectl(&["verify", "linux"], b"")
        .refused(3, "has no content manifest");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_manifest_that_is_older_than_its_revision_is_not_used_for_the_next_one() {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    make_image(&work);
    let name = "linux".parse().unwrap();
    let ingest = |intent, work: &Path| {
        let source = Source::working_subvolume(work.to_owned());
        host.volume.ingest(intent, &name, source).unwrap().revision
    };
    let first = ingest(Intent::Add, &work);
    assert!(host.volume.is_as_recorded(&name, first));
    let second = ingest(Intent::Upgrade, &work);
    assert!(host.volume.is_as_recorded(&name, second));
    let revision = host.volume.path().join("linux/linux-2");
    tamper(&revision, |it| write_file(&it.join("disk.img"), "other"));
    assert!(!host.volume.is_as_recorded(&name, second));
    tamper(&host.volume.path().join("linux/linux-1"), |it| {
        write_file(&it.join("disk.img"), "third");
    });
    let copy = host.mount.path().join("copy");
    BtrfsBackend.snapshot(&revision, &copy).unwrap();
    ingest(Intent::Upgrade, &copy);
    host.machinectl(&["verify", "linux"], b"").success();
}
