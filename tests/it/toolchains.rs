//! Toolchains on a plain directory.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use ::store::Change;
use ::store::toolchains::Toolchains;
use tempfile::TempDir;

struct World {
    root: TempDir,
    from: TempDir,
    toolchains: Toolchains,
}

fn world() -> World {
    let (root, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(from.path(), "tools-1.0.tar", "one");
    symlink("tools-1.0.tar", from.path().join("tools.tar")).unwrap();
    let toolchains = Toolchains::open(root.path()).unwrap();
    World {
        root,
        from,
        toolchains,
    }
}

fn put(directory: &Path, name: &str, content: &str) {
    sys::file::replace(&directory.join(name), content.as_bytes()).unwrap();
}

fn read(file: &fs::File) -> String {
    let mut buffer = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut buffer, 0).unwrap();
    String::from_utf8(buffer).unwrap()
}

#[test]
fn a_toolchain_is_added_replaced_and_deleted_while_a_guest_fetches_it() {
    let world = world();
    let name = "default".parse().unwrap();
    let tools = "tools.tar".parse().unwrap();
    let toolchains = &world.toolchains;
    assert_eq!(
        toolchains.add(&name, world.from.path()).unwrap(),
        Change::Changed
    );
    assert_eq!(
        toolchains.add(&name, world.from.path()).unwrap(),
        Change::Unchanged
    );
    let old = toolchains.load(&name).unwrap();
    assert_eq!(old.files.len(), 2);
    assert_eq!(read(&old.files[&tools]), "one");

    put(world.from.path(), "tools-1.1.tar", "two");
    fs::remove_file(world.from.path().join("tools.tar")).unwrap();
    symlink("tools-1.1.tar", world.from.path().join("tools.tar")).unwrap();
    assert_eq!(
        toolchains.add(&name, world.from.path()).unwrap(),
        Change::Changed
    );
    let new = toolchains.load(&name).unwrap();
    assert_ne!(old.id, new.id);
    assert_eq!(
        (read(&old.files[&tools]), read(&new.files[&tools])),
        ("one".into(), "two".into())
    );

    assert_eq!(toolchains.delete(&name).unwrap(), Change::Changed);
    assert_eq!(toolchains.delete(&name).unwrap(), Change::Unchanged);
    assert_eq!(read(&new.files[&tools]), "two");
    assert_eq!(
        world.root.path().read_dir().unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn the_identity_follows_the_content_and_nothing_else() {
    let world = world();
    let name = "default".parse().unwrap();
    world.toolchains.add(&name, world.from.path()).unwrap();
    let id = || world.toolchains.load(&name).unwrap().id;
    let first = id();
    let file = world.root.path().join("default/tools-1.0.tar");
    put(&world.root.path().join("default"), "tools-1.0.tar", "one");
    assert_eq!(id(), first, "the same content again");
    put(
        &world.root.path().join("default"),
        ".tools.swp",
        "an editor's",
    );
    assert_eq!(id(), first, "hidden files are not served");
    put(&world.root.path().join("default"), "tools-1.0.tar", "two");
    assert_ne!(id(), first);
    fs::remove_file(file).unwrap();
    let error = world.toolchains.load(&name).unwrap_err().to_string();
    assert!(error.contains("tools.tar` leads out"), "{error}");
}

#[test]
fn what_a_toolchain_cannot_hold_is_refused_by_name_and_changes_nothing() {
    let name = "default".parse().unwrap();
    let refuses = |words: &str, spoil: fn(&Path)| {
        let world = world();
        spoil(world.from.path());
        let error = world
            .toolchains
            .add(&name, world.from.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(world.root.path().read_dir().unwrap().count(), 0, "{words}");
        assert!(world.toolchains.load(&name).is_err());
    };
    refuses("secret` leads out", |path| {
        symlink("/etc/passwd", path.join("secret")).unwrap();
    });
    refuses("up` leads out", |path| {
        symlink("../x", path.join("up")).unwrap();
    });
    refuses("loop` leads out", |path| {
        symlink("loop", path.join("loop")).unwrap();
    });
    refuses("inner` is not a file", |path| {
        fs::create_dir(path.join("inner")).unwrap();
    });
    refuses("' ' is not allowed", |path| put(path, "a b", ""));
    let world = world();
    let empty = tempfile::tempdir().unwrap();
    assert!(world.toolchains.add(&name, empty.path()).is_err());
}

#[test]
fn what_a_killed_call_has_staged_goes_with_the_next_one() {
    let world = world();
    fs::create_dir(world.root.path().join(".buildhost.new-default")).unwrap();
    put(
        &world.root.path().join(".buildhost.new-default"),
        "half",
        "h",
    );
    assert!(world.toolchains.list().unwrap().is_empty());
    world
        .toolchains
        .add(&"default".parse().unwrap(), world.from.path())
        .unwrap();
    assert_eq!(world.root.path().read_dir().unwrap().count(), 1);
}
