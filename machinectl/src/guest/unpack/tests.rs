use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// An entry of an archive: its type, its path, and its content or the target of the link.
type Member<'a> = (EntryType, &'a str, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIRECTORY: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;
const LINK: EntryType = EntryType::Link;

/// Returns an archive with these entries, whose paths are written as they are.
fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, path, content) in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        let put =
            |field: &mut [u8], text: &str| field[..text.len()].copy_from_slice(text.as_bytes());
        put(&mut header.as_old_mut().name, path);
        let data: &[u8] = match *kind {
            SYMLINK | LINK => {
                put(&mut header.as_old_mut().linkname, content);
                &[]
            }
            _ => content.as_bytes(),
        };
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A directory with a victim beside the place of an archive.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("inside")).unwrap();
        fs::create_dir(directory.path().join("outside")).unwrap();
        sys::file::replace(&directory.path().join("victim"), b"untouched").unwrap();
        Self { directory }
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.directory.path().join("inside").join(name)
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked, UnpackError> {
        unpack(archive, &self.inside(""), OsStr::new("new"), 1 << 20)
    }

    fn is_untouched(&self) -> bool {
        let names = |path: &str| {
            fs::read_dir(self.directory.path().join(path))
                .unwrap()
                .count()
        };
        let victim = self.directory.path().join("victim");
        names("") == 3
            && names("outside") == 0
            && fs::read(&victim).unwrap() == b"untouched"
            && victim.metadata().unwrap().nlink() == 1
    }
}

#[test]
fn a_directory_is_unpacked_under_its_new_name() {
    let place = Place::new();
    let unpacked = place.unpack(&archive(&[
        (DIRECTORY, "./old", ""),
        (FILE, "./old/deep/file", "text"),
        (LINK, "./old/hard", "./old/deep/file"),
        (SYMLINK, "./old/soft", "/etc/passwd"),
        (EntryType::Fifo, "./old/pipe", ""),
        (EntryType::Char, "./old/device", ""),
    ]));
    let expected = Unpacked {
        bytes: 4,
        left_out: 2,
    };
    assert_eq!(unpacked.unwrap(), expected);
    assert_eq!(fs::read(place.inside("new/hard")).unwrap(), b"text");
    let file = place.inside("new/deep/file").metadata().unwrap();
    assert_eq!((file.permissions().mode() & 0o7000, file.nlink()), (0, 2));
    let link = fs::read_link(place.inside("new/soft")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    assert!(place.is_untouched());
}

#[test]
fn no_archive_writes_outside_of_its_place() {
    let hostile: [&[Member<'_>]; 12] = [
        &[(FILE, "../victim", "x")],
        &[(FILE, "old/../../victim", "x")],
        &[(FILE, "/tmp/buildhost-victim", "x")],
        &[(FILE, "old", "x"), (FILE, "other", "x")],
        &[(SYMLINK, "old", "../outside"), (FILE, "old/file", "x")],
        &[
            (DIRECTORY, "old", ""),
            (SYMLINK, "old/a", "../../outside"),
            (FILE, "old/a/file", "x"),
        ],
        &[
            (DIRECTORY, "old", ""),
            (SYMLINK, "old/a", "../../victim"),
            (FILE, "old/a", "x"),
        ],
        &[
            (DIRECTORY, "old", ""),
            (SYMLINK, "old/a", "../../outside"),
            (DIRECTORY, "old/a", ""),
            (FILE, "old/a/x", "x"),
        ],
        &[
            (DIRECTORY, "old", ""),
            (LINK, "old/a", "../victim"),
            (FILE, "old/a", "x"),
        ],
        &[(DIRECTORY, "old", ""), (LINK, "old/a", "/etc/passwd")],
        &[(SYMLINK, "old", "../outside"), (SYMLINK, "old/a", "x")],
        &[
            (DIRECTORY, "old", ""),
            (SYMLINK, "old/d", "../../outside"),
            (LINK, "old/e", "old/d/x"),
        ],
    ];
    for members in hostile {
        let place = Place::new();
        let refused = place.unpack(&archive(members));
        assert!(refused.is_err(), "{members:?}");
        assert!(place.is_untouched(), "{members:?}");
    }
}

#[test]
fn a_link_to_a_link_is_no_way_out() {
    let place = Place::new();
    // The hard link is another name of the symbolic link itself.
    let refused = place.unpack(&archive(&[
        (DIRECTORY, "old", ""),
        (SYMLINK, "old/a", "../../victim"),
        (LINK, "old/b", "old/a"),
        (FILE, "old/b", "x"),
    ]));
    assert!(matches!(refused, Err(UnpackError::Twice(_))), "{refused:?}");
    assert!(place.is_untouched());
}

#[test]
fn a_size_beyond_the_limit_and_a_cut_archive_are_refused() {
    let place = Place::new();
    let large = "x".repeat(70_000);
    let bytes = archive(&[(FILE, "old", &large)]);
    let refused = unpack(bytes.as_slice(), &place.inside(""), OsStr::new("a"), 65_536);
    assert!(matches!(refused, Err(UnpackError::TooLarge(65_536))));
    for cut in [0, 100, 512, 1000] {
        let place = Place::new();
        assert!(place.unpack(&bytes[..cut]).is_err(), "{cut}");
        assert!(place.is_untouched());
    }
}

#[test]
fn a_file_replaces_a_file_and_nothing_replaces_a_directory() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    for name in ["new", "old"] {
        sys::file::replace(&path(name), name.as_bytes()).unwrap();
    }
    fs::create_dir(path("dir")).unwrap();
    symlink("dir", path("link")).unwrap();
    assert!(publish(&path("new"), &path("dir")).is_err());
    assert!(publish(&path("dir"), &path("old")).is_err());
    publish(&path("new"), &path("link")).unwrap();
    assert!(path("link").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_dir(path("dir")).unwrap().count(), 0);
}

#[test]
fn a_target_is_a_directory_or_the_new_name() {
    let existing = tempfile::tempdir().unwrap();
    let directory = existing.path();
    let new = directory.join("x");
    assert_eq!(place(directory, "name"), (directory.into(), "name".into()));
    assert_eq!(place(&new, "name"), (directory.into(), "x".into()));
    assert_eq!(place(Path::new("x"), "name"), (".".into(), "x".into()));
    assert_eq!(place(Path::new("."), "name"), (".".into(), "name".into()));
    assert_eq!(place(Path::new("a/"), "name"), ("a/".into(), "name".into()));
}

proptest! {
    #[test]
    fn arbitrary_entries_stay_inside(
        members in prop::collection::vec(
            (
                prop_oneof![Just(FILE), Just(DIRECTORY), Just(SYMLINK), Just(LINK)],
                "(a|b|\\.\\.|/|a/b|a/b/c|a/\\.\\./\\.\\./victim|\\./a)",
                "(a|a/b|\\.\\.|\\.\\./\\.\\./victim|\\.\\./outside|/etc|\\.)",
            ),
            1..8,
        )
    ) {
        let place = Place::new();
        let members: Vec<Member<'_>> =
            members.iter().map(|(kind, path, to)| (*kind, path.as_str(), to.as_str())).collect();
        let _ = place.unpack(&archive(&members));
        prop_assert!(place.is_untouched());
    }
}
