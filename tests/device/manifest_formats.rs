//! Content manifests of all formats that were ever written, as files of the code of their time. A
//! change of the code must not change their verdict about a revision.

use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use ::store::content_manifest::{BLOCK, FILE};
use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::store::{Intent, Source};
use config::Revision;
use rustix::fs::{FileType, lremovexattr};
use tests::hosts::{BuildHost, DevelopmentHost};
use tests::special_files::{
    ACL, CAPABILITY, DEFAULT_ACL, acl, capability, make_node, set_attribute,
};
use tests::write_file;

/// The manifests of [`make_tree`] in the formats 1, 2 and 3. The first two were written by the code
/// of commits 6fc85ae and 4a9f714.
const MANIFESTS: [&str; 3] = [
    include_str!("fixtures/contents-1.b3"),
    include_str!("fixtures/contents-2.b3"),
    include_str!("fixtures/contents-3.b3"),
];

/// A change of the tree: its description, and the first format that covers it.
struct Tampering {
    change: fn(&Path),
    description: &'static str,
    covered_since: usize,
}

const TAMPERINGS: [Tampering; 12] = [
    Tampering {
        change: |root| write_at(&root.join("disk.img"), 2 * BLOCK + 7, b"x"),
        description: "`disk.img` has another content",
        covered_since: 1,
    },
    Tampering {
        change: |root| write_at(&root.join("disk.img"), BLOCK + 7, b"x"),
        description: "`disk.img` has another content",
        covered_since: 1,
    },
    Tampering {
        change: |root| {
            File::options()
                .append(true)
                .open(root.join("empty"))
                .unwrap()
                .set_len(1)
                .unwrap();
        },
        description: "`empty` has another content",
        covered_since: 1,
    },
    Tampering {
        change: |root| {
            fs::remove_file(root.join("root/bin/link")).unwrap();
            symlink("other", root.join("root/bin/link")).unwrap();
        },
        description: "`root/bin/link` has another content",
        covered_since: 1,
    },
    Tampering {
        change: |root| set_mode(&root.join("root/bin/ping"), 0o4755),
        description: "`root/bin/ping` has another mode",
        covered_since: 1,
    },
    Tampering {
        change: |root| chown(root.join("root"), None, Some(7)).unwrap(),
        description: "`root` has another owner",
        covered_since: 1,
    },
    Tampering {
        change: |root| fs::remove_file(root.join(odd_name())).unwrap(),
        description: "`a%20%25%ff` is missing",
        covered_since: 1,
    },
    Tampering {
        change: |root| write_file(&root.join("root/new"), ""),
        description: "`root/new` was added",
        covered_since: 1,
    },
    Tampering {
        change: |root| {
            fs::remove_file(root.join("null")).unwrap();
            make_node(&root.join("null"), FileType::CharacterDevice, (1, 5));
        },
        description: "`null` has another device number",
        covered_since: 2,
    },
    Tampering {
        change: |root| {
            set_attribute(
                &root.join("root/bin/ping"),
                CAPABILITY,
                &capability(1 << 21),
            );
        },
        description: "`root/bin/ping` has another capability",
        covered_since: 2,
    },
    Tampering {
        change: |root| lremovexattr(root.join("root"), DEFAULT_ACL).unwrap(),
        description: "`root` lacks its default ACL",
        covered_since: 2,
    },
    Tampering {
        change: |root| set_attribute(&root.join("root/bin/link"), "trusted.a=b", b"two"),
        description: "`root/bin/link` has another value of its attribute `trusted.a=b`",
        covered_since: 2,
    },
];

fn odd_name() -> PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(b"a %\xff")).to_owned()
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    file.unwrap().write_all_at(bytes, offset).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Creates the tree that the manifests describe: entries of each kind, and a disk with data in its
/// first and third block.
fn make_tree(root: &Path) {
    BtrfsBackend.create(root).unwrap();
    set_mode(root, 0o755);
    write_at(&root.join("disk.img"), 100, b"first block");
    write_at(
        &root.join("disk.img"),
        3 * BLOCK - 4,
        b"third, and fourth block",
    );
    write_file(&root.join("empty"), "");
    write_file(&root.join(odd_name()), "odd");
    make_node(&root.join("null"), FileType::CharacterDevice, (1, 3));
    make_node(&root.join("pipe"), FileType::Fifo, (0, 0));
    let bin = root.join("root/bin");
    fs::create_dir_all(&bin).unwrap();
    write_file(&bin.join("ping"), "ping");
    symlink("ping", bin.join("link")).unwrap();
    for (name, mode) in [
        ("disk.img", 0o600),
        ("empty", 0o644),
        ("root", 0o755),
        ("root/bin", 0o1777),
        ("root/bin/ping", 0o755),
    ] {
        set_mode(&root.join(name), mode);
    }
    set_mode(&root.join(odd_name()), 0o400);
    chown(bin.join("ping"), Some(1000), Some(100)).unwrap();
    set_attribute(&bin.join("ping"), CAPABILITY, &capability(1 << 13));
    set_attribute(&bin.join("ping"), "user.a", b"one");
    set_attribute(&bin.join("link"), "trusted.a=b", b"one");
    set_attribute(&root.join("empty"), ACL, &acl(1000, 4));
    set_attribute(&root.join("root"), DEFAULT_ACL, &acl(1000, 4));
}

/// Creates a read-only subvolume with the tree, a change of it, and a manifest.
fn make_revision(path: &Path, manifest: &str, change: impl Fn(&Path)) {
    make_tree(path);
    write_file(&path.join(FILE), manifest);
    change(path);
    BtrfsBackend.make_read_only(path).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_latest_format_is_written_as_before() {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    make_tree(&work);
    let source = Source::working_subvolume(work);
    let linux = "linux".parse().unwrap();
    host.volume.ingest(Intent::Add, &linux, source).unwrap();
    let path = host.volume.path().join("linux/linux-1").join(FILE);
    assert_eq!(fs::read_to_string(path).unwrap(), MANIFESTS[2]);
}

/// Adds revision 1 of a machine, as an administrator with `btrfs` and `ln` could.
fn add(host: &BuildHost, machine: &str, manifest: &str, change: impl Fn(&Path)) {
    let directory = host.volume.path().join(machine);
    fs::create_dir(&directory).unwrap();
    let revision = format!("{machine}-1");
    make_revision(&directory.join(&revision), manifest, change);
    symlink(revision, directory.join(machine)).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn revisions_of_all_formats_are_verified() {
    let host = BuildHost::new(512);
    for (format, manifest) in (1..).zip(MANIFESTS) {
        let machine = format!("format{format}");
        add(&host, &machine, manifest, |_| {});
        let verified = host.machinectl(&["verify", &machine], b"").success();
        let is_limited = verified.stderr.contains("format 1, which does not cover");
        assert_eq!(is_limited, format == 1, "{verified:?}");
        for (number, tampering) in TAMPERINGS.iter().enumerate() {
            let machine = format!("format{format}n{number}");
            add(&host, &machine, manifest, tampering.change);
            let verified = host.machinectl(&["verify", &machine], b"");
            if format < tampering.covered_since {
                verified.success();
            } else {
                verified.refused(23, tampering.description);
            }
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn received_revisions_of_all_formats_are_verified() {
    let (host, development) = (BuildHost::new(512), DevelopmentHost::new(512));
    for (format, manifest) in (1..).zip(MANIFESTS) {
        for (tampering, machine) in TAMPERINGS.iter().zip('a'..) {
            let machine = format!("{machine}{format}");
            let image = format!("{machine}-1");
            make_revision(&development.path(&image), manifest, tampering.change);
            let stream = development.send(&image, None);
            let added = host.machinectl(&["add", &machine, "--json"], &stream);
            if format < tampering.covered_since {
                assert!(
                    added
                        .success()
                        .stdout
                        .contains("\"content_manifest\": true")
                );
            } else {
                added.refused(23, tampering.description);
                assert!(!host.volume.path().join(&machine).exists(), "{machine}");
            }
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn revisions_of_all_formats_are_parents_of_new_ones() {
    let (host, receiver) = (BuildHost::new(512), BuildHost::new(512));
    for (format, manifest) in (1..).zip(MANIFESTS) {
        let machine = format!("format{format}");
        add(&host, &machine, manifest, |_| {});
        let directory = host.volume.path().join(&machine);
        let first = directory.join(format!("{machine}-1"));
        let work = host.mount.path().join(format!("work{format}"));
        BtrfsBackend.snapshot(&first, &work).unwrap();
        write_at(&work.join("disk.img"), 2 * BLOCK + 7, b"x");
        let name = machine.parse().unwrap();
        let source = Source::working_subvolume(work);
        host.volume.ingest(Intent::Upgrade, &name, source).unwrap();
        host.machinectl(&["verify", &machine], b"").success();
        let read = |revision| fs::read_to_string(directory.join(revision).join(FILE)).unwrap();
        assert_eq!(read(format!("{machine}-1")), manifest);
        assert!(read(format!("{machine}-2")).starts_with("buildhost contents 3\n"));

        let mut known = Vec::new();
        for (verb, revision) in [("add", Revision(1)), ("upgrade", Revision(2))] {
            let outgoing = host.volume.send_to(2, &name, Some(revision), &known);
            let mut stream = Vec::new();
            outgoing.unwrap().stream.copy_to(&mut stream).unwrap();
            receiver.machinectl(&[verb, &machine], &stream).success();
            known.push(host.view(&machine).revision(revision).unwrap().uuid);
        }
        receiver.machinectl(&["verify", &machine], b"").success();
    }
}
