use std::os::unix::fs::{FileExt, symlink};

use super::super::scan::scan;
use super::*;

/// The kinds of commands, by the kernel's `fs/btrfs/send.h`.
const CREATE_FILE: u16 = 3;
const CREATE_LINK: u16 = 8;
const RENAME: u16 = 9;
const HARD_LINK: u16 = 10;
const UNLINK: u16 = 11;
const WRITE: u16 = 15;
const TRUNCATE: u16 = 17;
const CHMOD: u16 = 18;

/// The attributes of commands.
const SIZE: u16 = 4;
const PATH: u16 = 15;
const PATH_TO: u16 = 16;
const PATH_LINK: u16 = 17;
const FILE_OFFSET: u16 = 18;
const DATA: u16 = 19;

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).unwrap();
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), value].concat()
}

/// A directory, with the update of the manifest that it had at first.
struct Fixture {
    directory: tempfile::TempDir,
    update: ManifestUpdate,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir(path.join("etc")).unwrap();
        for (name, size) in [("disk.img", 5 * BLOCK + 7), ("etc/one", 3), ("etc/two", 0)] {
            let file = File::create_new(path.join(name)).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(b"one", 0).unwrap();
            file.write_all_at(b"two", size.max(3) - 3).unwrap();
        }
        std::fs::hard_link(path.join("disk.img"), path.join("linked.img")).unwrap();
        symlink("one", path.join("etc/link")).unwrap();
        let update = ManifestUpdate::of(scan(path, Format::Three, &[FILE]).unwrap()).unwrap();
        Self { directory, update }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn apply(&mut self, kind: u16, attributes: &[(u16, &[u8])]) {
        let bytes: Vec<_> = attributes
            .iter()
            .flat_map(|(kind, value)| attribute(*kind, value))
            .collect();
        let command = Command::parse_whole(kind, 1, &bytes).unwrap();
        self.update.apply(&command);
    }

    fn write(&mut self, name: &str, position: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.write_all_at(bytes, position).unwrap();
        let position = position.to_le_bytes();
        let attributes = [
            (PATH, name.as_bytes()),
            (FILE_OFFSET, &position[..]),
            (DATA, bytes),
        ];
        self.apply(WRITE, &attributes);
    }

    fn truncate(&mut self, name: &str, size: u64) {
        let file = File::options().write(true).open(self.path(name)).unwrap();
        file.set_len(size).unwrap();
        self.apply(
            TRUNCATE,
            &[(PATH, name.as_bytes()), (SIZE, &size.to_le_bytes())],
        );
    }

    /// Checks that the updated manifest is that of the whole directory.
    fn check(self) {
        let path = self.directory.path();
        let expected = scan(path, Format::Three, &[FILE]).unwrap();
        let updated = self.update.finish(path).unwrap();
        assert_eq!(expected.compare(&updated), []);
        assert_eq!(expected, updated);
    }
}

#[test]
fn written_and_truncated_blocks_are_read() {
    let mut it = Fixture::new();
    it.write("disk.img", 2 * BLOCK - 1, b"ab");
    it.write("disk.img", 4 * BLOCK, b"c");
    it.check();

    for size in [0, 1, BLOCK, 5 * BLOCK, 5 * BLOCK + 8, 9 * BLOCK] {
        let mut it = Fixture::new();
        it.truncate("disk.img", size);
        it.check();
        // What was cut off is zeros afterwards.
        let mut it = Fixture::new();
        it.truncate("disk.img", size);
        it.truncate("disk.img", 6 * BLOCK);
        it.write("disk.img", 3 * BLOCK + 5, b"d");
        it.check();
    }
}

#[test]
fn entries_keep_their_content_when_they_move() {
    let mut it = Fixture::new();
    std::fs::rename(it.path("etc"), it.path("usr")).unwrap();
    it.apply(RENAME, &[(PATH, b"etc"), (PATH_TO, b"usr")]);
    std::fs::rename(it.path("usr/one"), it.path("usr/two")).unwrap();
    it.apply(RENAME, &[(PATH, b"usr/one"), (PATH_TO, b"usr/two")]);
    it.write("usr/two", 1, b"changed");
    std::fs::remove_file(it.path("usr/link")).unwrap();
    it.apply(UNLINK, &[(PATH, b"usr/link")]);
    it.check();
}

#[test]
fn created_entries_are_read() {
    let mut it = Fixture::new();
    File::create_new(it.path("new")).unwrap();
    it.apply(CREATE_FILE, &[(PATH, b"o257-7-0")]);
    it.apply(RENAME, &[(PATH, b"o257-7-0"), (PATH_TO, b"new")]);
    it.write("new", 2 * BLOCK, b"text");
    symlink("new", it.path("to-new")).unwrap();
    it.apply(CREATE_LINK, &[(PATH, b"to-new"), (PATH_LINK, b"new")]);
    File::create_new(it.path(FILE)).unwrap();
    it.apply(CREATE_FILE, &[(PATH, FILE.as_bytes())]);
    it.apply(CHMOD, &[(PATH, b"")]);
    it.check();
}

#[test]
fn all_names_of_a_changed_file_are_read() {
    let mut it = Fixture::new();
    std::fs::hard_link(it.path("etc/one"), it.path("etc/three")).unwrap();
    it.apply(HARD_LINK, &[(PATH, b"etc/three"), (PATH_LINK, b"etc/one")]);
    it.write("linked.img", BLOCK, b"changed");
    it.write("etc/one", 0, b"changed");
    it.check();
}

#[test]
fn unchanged_blocks_are_not_read() {
    let mut it = Fixture::new();
    std::fs::remove_file(it.path("linked.img")).unwrap();
    it.apply(UNLINK, &[(PATH, b"linked.img")]);
    let file = File::options()
        .write(true)
        .open(it.path("disk.img"))
        .unwrap();
    file.write_all_at(b"unseen", BLOCK).unwrap();
    it.write("disk.img", 4 * BLOCK, b"c");
    let path = it.directory.path();
    let actual = scan(path, Format::Three, &[FILE]).unwrap();
    let updated = it.update.finish(path).unwrap();
    let differences: Vec<_> = actual
        .compare(&updated)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(differences, ["`disk.img` has another content"]);
}
