use std::fs::File;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::super::format::Parent;
use super::*;

const OWN: Uuid = Uuid::from_u128(7);
const PARENT: Uuid = Uuid::from_u128(5);

fn header(parent: Option<Uuid>) -> Header {
    Header {
        name: "demo-2".into(),
        uuid: OWN,
        transaction: 9,
        parent: parent.map(|uuid| Parent {
            uuid,
            transaction: 8,
        }),
    }
}

fn command(effect: Effect, path: &str) -> Command<'_> {
    Command {
        path: path.as_bytes(),
        ..Command::new(0, effect)
    }
}

fn rename<'a>(from: &'a str, to: &'a str) -> Command<'a> {
    Command {
        path_to: to.as_bytes(),
        ..command(Effect::Rename, from)
    }
}

fn clone<'a>(path: &'a str, uuid: Uuid, from: &'a str) -> Command<'a> {
    Command {
        clone_uuid: Some(uuid),
        clone_path: from.as_bytes(),
        ..command(Effect::Clone, path)
    }
}

fn hard_link<'a>(path: &'a str, existing: &'a str) -> Command<'a> {
    Command {
        path_link: existing.as_bytes(),
        ..command(Effect::HardLink, path)
    }
}

/// A sequence of commands, and the violation of the last one. All others are accepted.
type Case<'a> = (&'a [Command<'a>], Option<Violation>);

fn check(parent: Option<&Path>, cases: &[Case<'_>]) {
    for (commands, expected) in cases {
        let header = header(parent.map(|_| PARENT));
        let mut confinement = Confinement::new(&header, parent.map(Path::to_owned));
        let (last, first) = commands.split_last().unwrap();
        for command in first {
            confinement.check(command).unwrap();
        }
        let violation = match confinement.check(last) {
            Ok(()) => None,
            Err(StreamError::Outside { violation, .. }) => Some(violation),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(violation, *expected, "{commands:?}");
    }
}

#[test]
fn paths_that_leave_the_subvolume_are_refused() {
    use Effect::{Create, Remove};
    for path in [
        "../x",
        "a/../../x",
        "/etc/x",
        "",
        "a//x",
        "a/./x",
        "a/",
        "a\0b",
    ] {
        check(None, &[(&[command(Create, path)], Some(Violation::Path))]);
    }
    check(
        None,
        &[
            (&[command(Remove, "../../good/good")], Some(Violation::Path)),
            (&[rename("../victim", "stolen")], Some(Violation::Path)),
            (&[rename("x", "../x")], Some(Violation::Path)),
            (&[hard_link("x", "../../etc/shadow")], Some(Violation::Path)),
            (
                &[clone("f", OWN, "../demo-1/disk.img")],
                Some(Violation::Path),
            ),
            (
                &[clone("f", Uuid::from_u128(99), "disk.img")],
                Some(Violation::CloneSource),
            ),
        ],
    );
}

#[test]
fn links_of_the_stream_are_not_followed() {
    use Effect::{ChangeEntry, ChangeFile, Create, CreateLink, Remove};
    let link = || command(CreateLink, "l");
    let refused = Some(Violation::ThroughLink);
    check(
        None,
        &[
            (&[link(), command(Create, "l/x")], refused),
            (&[link(), rename("l", "m"), command(Remove, "m/x")], refused),
            (
                &[
                    command(Create, "d"),
                    command(CreateLink, "d/l"),
                    rename("d", "e"),
                    command(Create, "e/l/x"),
                ],
                refused,
            ),
            (
                &[link(), hard_link("h", "l"), command(ChangeFile, "h")],
                refused,
            ),
            (&[link(), command(ChangeFile, "l")], refused),
            (&[link(), clone("f", OWN, "l")], refused),
            // Streams of `btrfs send` do these.
            (&[link(), command(ChangeEntry, "l")], None),
            (
                &[
                    link(),
                    command(Remove, "l"),
                    command(Create, "l"),
                    command(Create, "l/x"),
                ],
                None,
            ),
            (&[command(Create, "f"), clone("g", OWN, "f")], None),
            (&[command(ChangeFile, "")], None),
        ],
    );
}

#[test]
fn links_of_the_parent_are_not_followed() {
    use Effect::{ChangeFile, Create, Remove};
    let parent = tempfile::tempdir().unwrap();
    fs::create_dir_all(parent.path().join("d/e")).unwrap();
    symlink("/etc", parent.path().join("d/e/l")).unwrap();
    symlink("/etc/shadow", parent.path().join("s")).unwrap();
    let refused = Some(Violation::ThroughLink);
    check(
        Some(parent.path()),
        &[
            (&[command(Create, "d/e/l/x")], refused),
            (&[rename("d", "f"), command(Create, "f/e/l/x")], refused),
            (
                &[
                    rename("d/e", "o1"),
                    rename("o1", "d/g"),
                    command(Create, "d/g/l/x"),
                ],
                refused,
            ),
            (&[command(ChangeFile, "s")], refused),
            (&[clone("f", PARENT, "s")], refused),
            (&[clone("f", PARENT, "d/e/l/x")], refused),
            (&[clone("f", PARENT, "d/f")], None),
            (
                &[
                    command(Remove, "d/e/l"),
                    command(Create, "d/e/l"),
                    command(Create, "d/e/l/x"),
                ],
                None,
            ),
        ],
    );
}

#[test]
fn a_full_stream_of_files_takes_no_memory() {
    let mut confinement = Confinement::new(&header(None), None);
    for number in 0..1000 {
        let path = format!("d/{number}");
        confinement.check(&command(Effect::Create, "o1")).unwrap();
        confinement.check(&rename("o1", &path)).unwrap();
    }
    assert_eq!(confinement.changes.len(), 0);
}

/// An operation on a tree, as a stream's command and on a real directory.
#[derive(Debug, Clone)]
enum Operation {
    Directory(String),
    File(String),
    Link(String),
    Remove(String),
    Rename(String, String),
    HardLink(String, String),
    Write(String),
}

impl Operation {
    fn any() -> impl Strategy<Value = Self> {
        let path = || "[abc](/[abc]){0,3}";
        prop_oneof![
            path().prop_map(Self::Directory),
            path().prop_map(Self::File),
            path().prop_map(Self::Link),
            path().prop_map(Self::Remove),
            (path(), path()).prop_map(|(from, to)| Self::Rename(from, to)),
            (path(), path()).prop_map(|(new, existing)| Self::HardLink(new, existing)),
            path().prop_map(Self::Write),
        ]
    }

    fn command(&self) -> Command<'_> {
        match self {
            Self::Directory(path) | Self::File(path) => command(Effect::Create, path),
            Self::Link(path) => command(Effect::CreateLink, path),
            Self::Remove(path) => command(Effect::Remove, path),
            Self::Rename(from, to) => rename(from, to),
            Self::HardLink(new, existing) => hard_link(new, existing),
            Self::Write(path) => command(Effect::ChangeFile, path),
        }
    }

    /// Applies the operation, as `btrfs receive` does.
    fn apply(&self, root: &Path) -> io::Result<()> {
        match self {
            Self::Directory(path) => fs::create_dir(root.join(path)),
            Self::File(path) => File::create_new(root.join(path)).map(drop),
            Self::Link(path) => symlink("anywhere", root.join(path)),
            Self::Remove(path) => {
                fs::remove_file(root.join(path)).or_else(|_| fs::remove_dir(root.join(path)))
            }
            Self::Rename(from, to) => fs::rename(root.join(from), root.join(to)),
            Self::HardLink(new, existing) => fs::hard_link(root.join(existing), root.join(new)),
            Self::Write(path) => File::options().write(true).open(root.join(path)).map(drop),
        }
    }

    /// Returns true if the operation follows a symbolic link of a directory tree.
    fn follows_link(&self, root: &Path) -> bool {
        let is_link = |path: &Path| root.join(path).is_symlink();
        let parents = |path: &str| Path::new(path).ancestors().skip(1).any(is_link);
        match self {
            Self::Directory(path) | Self::File(path) | Self::Link(path) | Self::Remove(path) => {
                parents(path)
            }
            Self::Rename(one, other) | Self::HardLink(one, other) => parents(one) || parents(other),
            Self::Write(path) => parents(path) || is_link(Path::new(path)),
        }
    }
}

proptest! {
    /// A real directory tree is the model: the stream's effects are applied to a copy of the
    /// parent, in which the kernel knows what is a link.
    #[test]
    fn exactly_the_commands_that_follow_links_are_refused(
        before in proptest::collection::vec(Operation::any(), 0..12),
        stream in proptest::collection::vec(Operation::any(), 0..30),
    ) {
        let (parent, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [parent.path(), tree.path()] {
            for operation in &before {
                if !operation.follows_link(root) {
                    let _ = operation.apply(root);
                }
            }
        }
        let directory = Some(parent.path().to_owned());
        let mut confinement = Confinement::new(&header(Some(PARENT)), directory);
        for operation in &stream {
            let follows_link = operation.follows_link(tree.path());
            let checked = confinement.check(&operation.command());
            prop_assert_eq!(checked.is_err(), follows_link, "{:?}", operation);
            // The receiver ends at a command that fails.
            if follows_link || operation.apply(tree.path()).is_err() {
                break;
            }
        }
    }
}
