//! Random trees through `export` and `import`: an archive keeps everything that a content manifest
//! covers, and also hard links and holes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use ::store::content_manifest;
use ::store::subvolumes::{BtrfsBackend, SubvolumeBackend};
use ::store::{Intent, Source};
use rustix::fs::FileType;
use tests::hosts::BuildHost;
use tests::random::Xorshift;
use tests::special_files::{
    ACL, CAPABILITY, DEFAULT_ACL, acl, capability, make_node, set_attribute,
};
use tests::write_file;

/// The number of random trees.
const TREES: u64 = 6;
/// The number of entries of a tree.
const ENTRIES: usize = 60;

/// Makes a machine with random entries below `root`.
fn make_machine(path: &Path, random: &mut Xorshift) {
    BtrfsBackend.create(path).unwrap();
    write_file(&path.join("manifest"), ": 1\nid: x\nsummary: y\n");
    write_file(&path.join("disk.img"), "disk");
    let (mut directories, mut files) = (vec![path.join("root")], Vec::new());
    fs::create_dir(&directories[0]).unwrap();
    for index in 0..ENTRIES {
        let directory = &directories[random.index(directories.len())];
        let names = ["plain", "with blank", "-dash", "\u{e9}t\u{e9}", "new\nline"];
        let name = names[random.index(names.len())];
        let entry = directory.join(format!("{name}{index}"));
        let kind = random.below(10);
        make_entry(&entry, kind, &files, random);
        lchown(&entry, Some(id(random)), Some(id(random))).unwrap();
        if kind != 0 {
            let mode = u32::try_from(random.below(0o10000)).unwrap();
            fs::set_permissions(&entry, Permissions::from_mode(mode)).unwrap();
        }
        set_attributes(&entry, random);
        match kind {
            1 | 2 => directories.push(entry),
            5.. => files.push(entry),
            _ => {}
        }
    }
}

fn id(random: &mut Xorshift) -> u32 {
    // Among them users with a name, such as 1, 2 and 5.
    let numbers = [0, 1, 2, 5, 1000, 77_777, 2_000_000_000];
    numbers[random.index(numbers.len())]
}

/// Creates a link, directory, device, pipe, hard link or file.
fn make_entry(path: &Path, kind: u64, files: &[PathBuf], random: &mut Xorshift) {
    let number = u32::try_from(random.below(256)).unwrap();
    match kind {
        0 => symlink(format!("../{number}"), path).unwrap(),
        1 | 2 => fs::create_dir(path).unwrap(),
        3 => make_node(path, FileType::CharacterDevice, (number, number * 1000)),
        4 if number < 128 => make_node(path, FileType::BlockDevice, (259, number)),
        4 => make_node(path, FileType::Fifo, (0, 0)),
        5 if !files.is_empty() => {
            fs::hard_link(&files[random.index(files.len())], path).unwrap();
        }
        6 => {
            let file = File::create(path).unwrap();
            file.set_len(16 << 20).unwrap();
            let offset = random.below(15 << 20);
            file.write_all_at(&random.bytes(5000), offset).unwrap();
        }
        _ => {
            let size = random.index(40_000);
            BtrfsBackend.write(path, &random.bytes(size)).unwrap();
        }
    }
}

/// Sets attributes that the type of the entry allows.
fn set_attributes(path: &Path, random: &mut Xorshift) {
    let kind = path.symlink_metadata().unwrap().file_type();
    for (name, value) in [
        ("user.empty", &b""[..]),
        ("user.a=b, %c", b"line\n\0byte"),
        ("trusted.overlay.opaque", b"y"),
        ("trusted.long", &[b'x'; 3000]),
    ] {
        let is_allowed = kind.is_file() || kind.is_dir() || name.starts_with("trusted");
        if is_allowed && random.below(4) == 0 {
            set_attribute(path, name, value);
        }
    }
    if kind.is_file() && random.below(3) == 0 {
        let bits = u32::try_from(random.below(1 << 30)).unwrap();
        set_attribute(path, CAPABILITY, &capability(bits));
    }
    if !kind.is_symlink() && random.below(3) == 0 {
        set_attribute(path, ACL, &acl(id(random), 4));
    }
    if kind.is_dir() && random.below(3) == 0 {
        set_attribute(path, DEFAULT_ACL, &acl(id(random), 6));
    }
}

/// Returns the names of each file with several names, and the space of all files.
fn layout(directory: &Path) -> (BTreeSet<BTreeSet<PathBuf>>, u64) {
    let (mut names, mut blocks) = (BTreeMap::<_, BTreeSet<_>>::new(), 0);
    let mut waiting = vec![directory.to_owned()];
    while let Some(parent) = waiting.pop() {
        for entry in parent.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            if data.is_dir() {
                waiting.push(path);
            } else {
                blocks += data.blocks();
                let name = path.strip_prefix(directory).unwrap().to_owned();
                names.entry(data.ino()).or_default().insert(name);
            }
        }
    }
    let linked = names.into_values().filter(|names| names.len() > 1);
    (linked.collect(), blocks)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn archives_and_directories_keep_all_that_a_manifest_covers() {
    let (host, other) = (BuildHost::new(1024), BuildHost::new(1024));
    let files = tempfile::tempdir().unwrap();
    for seed in 1..=TREES {
        let mut random = Xorshift::new(seed);
        let (name, work) = (format!("m{seed}"), host.mount.path().join(seed.to_string()));
        make_machine(&work, &mut random);
        let source = Source::working_subvolume(work);
        let machine = name.parse().unwrap();
        host.volume.ingest(Intent::Add, &machine, source).unwrap();
        let revision = host.volume.path().join(format!("{name}/{name}"));
        let suffix = ["tar", "tar.zst"][random.index(2)];
        let archive = files.path().join(format!("a:{seed}.{suffix}"));
        let archive = archive.to_str().unwrap();
        host.machinectl(&["export", &name, "-o", archive], b"")
            .success();
        let manifest = fs::read_to_string(revision.join(content_manifest::FILE)).unwrap();
        assert!(manifest.lines().count() > ENTRIES, "{manifest}");
        let expected = layout(&revision);
        for from in [archive, revision.to_str().unwrap()] {
            other.machinectl(&["import", &name, from], b"").success();
            let imported = other.volume.path().join(format!("{name}/{name}"));
            let found = fs::read_to_string(imported.join(content_manifest::FILE)).unwrap();
            for (expected, found) in manifest.lines().zip(found.lines()) {
                assert_eq!(found, expected, "tree {seed} from {from}");
            }
            let (links, blocks) = layout(&imported);
            assert_eq!(links, expected.0, "tree {seed} from {from}");
            assert!(blocks <= expected.1 + expected.1 / 10, "holes of {from}");
        }
    }
}
