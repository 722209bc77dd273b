//! The contract of every subvolume backend, real or fake.

use std::fs;
use std::io;
use std::path::Path;

use store::{Change, SubvolumeBackend};

/// Checks the contract in an empty directory.
pub fn check(backend: &dyn SubvolumeBackend, directory: &Path) {
    let result = subvolumes(backend, directory)
        .and_then(|()| deletion(backend, directory))
        .and_then(|()| names(backend, directory));
    assert!(result.is_ok(), "{result:?}");
}

fn subvolumes(backend: &dyn SubvolumeBackend, directory: &Path) -> io::Result<()> {
    let (one, two, three) = (
        directory.join("1"),
        directory.join("2"),
        directory.join("3"),
    );
    assert_eq!(backend.info(&one)?, None);
    backend.create(&one)?;
    assert!(backend.create(&one).is_err(), "the name is taken");
    backend.write(&one.join("file"), b"content")?;
    backend.snapshot(&one, &two)?;
    backend.snapshot_read_only(&two, &three)?;
    backend.write(&two.join("file"), b"changed")?;
    assert_eq!(fs::read(one.join("file"))?, b"content");
    assert_eq!(fs::read(three.join("file"))?, b"content");

    let info = |path| Ok::<_, io::Error>(backend.info(path)?.ok_or(io::ErrorKind::NotFound)?);
    let (first, second, third) = (info(&one)?, info(&two)?, info(&three)?);
    assert_eq!(second.parent_uuid, Some(first.uuid));
    assert_eq!(third.parent_uuid, Some(second.uuid));
    assert_eq!(
        [first, second, third].map(|it| it.read_only),
        [false, false, true]
    );
    assert_eq!(third.received_uuid, None);
    assert!(
        backend.write(&three.join("file"), b"changed").is_err(),
        "the snapshot is read-only"
    );

    backend.make_read_only(&one)?;
    backend.make_read_only(&one)?;
    assert!(info(&one)?.read_only);
    backend.make_writable(&three)?;
    backend.write(&three.join("file"), b"changed")?;
    backend.commit(directory)?;
    let last_change = backend.last_change(&three.join("file"))?;
    let transaction = info(&three)?.transaction;
    assert!(
        last_change.is_none_or(|it| it == transaction),
        "{last_change:?} {transaction}"
    );
    backend.make_read_only(&three)?;
    backend.snapshot(&one, &directory.join("4"))?;
    assert!(
        !info(&directory.join("4"))?.read_only,
        "the snapshot is writable"
    );
    backend.commit(directory)
}

fn deletion(backend: &dyn SubvolumeBackend, directory: &Path) -> io::Result<()> {
    let outer = directory.join("4");
    backend.create(&outer.join("inner"))?;
    backend.create(&outer.join("inner").join("innermost"))?;
    let mut inner = backend.inner(&outer)?;
    inner.sort();
    assert_eq!(inner, ["inner", "inner/innermost"].map(Path::new));
    assert!(backend.inner(&outer.join("inner/innermost"))?.is_empty());
    backend.make_read_only(&outer.join("inner"))?;
    backend.make_read_only(&outer)?;
    assert_eq!(backend.delete(&outer)?, Change::Changed);
    assert_eq!(backend.delete(&outer)?, Change::Unchanged);
    assert_eq!(
        backend.delete(&directory.join("3"))?,
        Change::Changed,
        "read-only subvolumes can be deleted, too"
    );

    let plain = directory.join("plain");
    assert_eq!(backend.create_directory(&plain)?, Change::Changed);
    assert_eq!(backend.create_directory(&plain)?, Change::Unchanged);
    backend.write(&plain.join("file"), b"")?;
    assert_eq!(backend.info(&plain)?, None);
    assert!(backend.delete(&plain).is_err(), "not a subvolume");
    assert!(plain.join("file").is_file(), "left as it was");
    assert!(backend.remove_directory(&plain).is_err(), "not empty");
    assert_eq!(backend.unlink(&plain.join("file"))?, Change::Changed);
    assert_eq!(backend.unlink(&plain.join("file"))?, Change::Unchanged);
    assert_eq!(backend.remove_directory(&plain)?, Change::Changed);
    assert_eq!(backend.remove_directory(&plain)?, Change::Unchanged);
    Ok(())
}

fn names(backend: &dyn SubvolumeBackend, directory: &Path) -> io::Result<()> {
    let (one, other) = (directory.join("1"), directory.join("other"));
    backend.snapshot_read_only(&one, &other)?;
    let uuid = |path: &Path| Ok::<_, io::Error>(backend.info(path)?.map(|it| it.uuid));
    let before = (uuid(&one)?, uuid(&other)?);
    backend.exchange(&one, &other)?;
    assert_eq!(
        (uuid(&other)?, uuid(&one)?),
        before,
        "read-only subvolumes can be exchanged"
    );
    backend.rename(&other, &directory.join("renamed"))?;
    assert_eq!(uuid(&directory.join("renamed"))?, before.0);

    let (link, incoming) = (directory.join("link"), directory.join("incoming"));
    backend.symlink(Path::new("1"), &link)?;
    assert_eq!(backend.info(&link)?, None, "links are not followed");
    backend.symlink(Path::new("renamed"), &incoming)?;
    backend.rename(&incoming, &link)?;
    assert_eq!(fs::read_link(&link)?, Path::new("renamed"));
    assert!(!incoming.is_symlink());
    Ok(())
}
