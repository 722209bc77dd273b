//! Toolchains in a plain directory.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use ::store::Change;
use ::store::toolchains::Toolchains;
use tempfile::TempDir;

/// A directory of toolchains, and the files of a toolchain to add.
struct Fixture {
    root: TempDir,
    from: TempDir,
    toolchains: Toolchains,
}

fn fixture() -> Fixture {
    let (root, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(from.path(), "tools-1.0.tar", "one");
    symlink("tools-1.0.tar", from.path().join("tools.tar")).unwrap();
    let toolchains = Toolchains::open(root.path()).unwrap();
    Fixture {
        root,
        from,
        toolchains,
    }
}

fn write(directory: &Path, name: &str, content: &str) {
    sys::file::replace(&directory.join(name), content.as_bytes()).unwrap();
}

fn read(file: &fs::File) -> String {
    let mut buffer = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut buffer, 0).unwrap();
    String::from_utf8(buffer).unwrap()
}

#[test]
fn open_files_of_a_toolchain_survive_its_replacement_and_deletion() {
    let fixture = fixture();
    let name = "default".parse().unwrap();
    let tools = "tools.tar".parse().unwrap();
    let toolchains = &fixture.toolchains;
    assert_eq!(
        toolchains.add(&name, fixture.from.path()).unwrap(),
        Change::Changed
    );
    assert_eq!(
        toolchains.add(&name, fixture.from.path()).unwrap(),
        Change::Unchanged
    );
    let old = toolchains.load(&name).unwrap();
    assert_eq!(old.files.len(), 2);
    assert_eq!(read(&old.files[&tools]), "one");

    write(fixture.from.path(), "tools-1.1.tar", "two");
    fs::remove_file(fixture.from.path().join("tools.tar")).unwrap();
    symlink("tools-1.1.tar", fixture.from.path().join("tools.tar")).unwrap();
    assert_eq!(
        toolchains.add(&name, fixture.from.path()).unwrap(),
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
        fixture.root.path().read_dir().unwrap().count(),
        0,
        "no files are left"
    );
}

#[test]
fn the_identity_depends_on_the_content_only() {
    let fixture = fixture();
    let name = "default".parse().unwrap();
    fixture.toolchains.add(&name, fixture.from.path()).unwrap();
    let id = || fixture.toolchains.load(&name).unwrap().id;
    let first = id();
    let file = fixture.root.path().join("default/tools-1.0.tar");
    write(&fixture.root.path().join("default"), "tools-1.0.tar", "one");
    assert_eq!(id(), first, "the same content");
    write(
        &fixture.root.path().join("default"),
        ".tools.swp",
        "a hidden file",
    );
    assert_eq!(id(), first, "hidden files are not served");
    write(&fixture.root.path().join("default"), "tools-1.0.tar", "two");
    assert_ne!(id(), first);
    fs::remove_file(file).unwrap();
    let error = fixture.toolchains.load(&name).unwrap_err().to_string();
    assert!(error.contains("tools.tar` cannot be used"), "{error}");
}

#[test]
fn files_that_a_toolchain_cannot_contain_are_refused_by_name() {
    let name = "default".parse().unwrap();
    let assert_refused = |message: &str, spoil: fn(&Path)| {
        let fixture = fixture();
        spoil(fixture.from.path());
        let error = fixture
            .toolchains
            .add(&name, fixture.from.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
        let entries = fixture.root.path().read_dir().unwrap().count();
        assert_eq!(entries, 0, "{message}");
        assert!(fixture.toolchains.load(&name).is_err());
    };
    assert_refused("secret` cannot be used", |path| {
        symlink("/etc/passwd", path.join("secret")).unwrap();
    });
    assert_refused("up` cannot be used", |path| {
        symlink("../x", path.join("up")).unwrap();
    });
    assert_refused("loop` cannot be used", |path| {
        symlink("loop", path.join("loop")).unwrap();
    });
    assert_refused("inner` cannot be used", |path| {
        fs::create_dir(path.join("inner")).unwrap();
    });
    assert_refused("'\\n' is not allowed", |path| write(path, "a\nb", ""));
    let fixture = fixture();
    let empty = tempfile::tempdir().unwrap();
    assert!(fixture.toolchains.add(&name, empty.path()).is_err());
}

#[test]
fn the_staged_files_of_a_killed_call_are_deleted_by_the_next_one() {
    let fixture = fixture();
    fs::create_dir(fixture.root.path().join(".buildhost.new-default")).unwrap();
    write(
        &fixture.root.path().join(".buildhost.new-default"),
        "half",
        "h",
    );
    assert!(fixture.toolchains.list().unwrap().is_empty());
    fixture
        .toolchains
        .add(&"default".parse().unwrap(), fixture.from.path())
        .unwrap();
    assert_eq!(fixture.root.path().read_dir().unwrap().count(), 1);
}
