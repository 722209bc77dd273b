//! What every pool promises, the real one and the fake one alike.

use std::fs;
use std::io;
use std::path::Path;

use store::{Change, Pool};

/// Checks the whole contract in an empty directory.
///
/// # Panics
/// Where the pool breaks it.
pub fn check(pool: &dyn Pool, directory: &Path) {
    let result = subvolumes(pool, directory)
        .and_then(|()| deletion(pool, directory))
        .and_then(|()| names(pool, directory));
    assert!(result.is_ok(), "{result:?}");
}

fn subvolumes(pool: &dyn Pool, directory: &Path) -> io::Result<()> {
    let (one, two, three) = (
        directory.join("1"),
        directory.join("2"),
        directory.join("3"),
    );
    assert_eq!(pool.info(&one)?, None);
    pool.create(&one)?;
    assert!(pool.create(&one).is_err(), "a name is taken once");
    pool.write(&one.join("file"), b"content")?;
    pool.snapshot(&one, &two)?;
    pool.freeze(&two, &three)?;
    pool.write(&two.join("file"), b"changed")?;
    assert_eq!(fs::read(one.join("file"))?, b"content");
    assert_eq!(fs::read(three.join("file"))?, b"content");

    let info = |path| Ok::<_, io::Error>(pool.info(path)?.ok_or(io::ErrorKind::NotFound)?);
    let (first, second, third) = (info(&one)?, info(&two)?, info(&three)?);
    assert_eq!(second.parent_uuid, Some(first.uuid));
    assert_eq!(third.parent_uuid, Some(second.uuid));
    assert_eq!(
        [first, second, third].map(|it| it.read_only),
        [false, false, true]
    );
    assert_eq!(third.received_uuid, None);
    assert!(
        pool.write(&three.join("file"), b"changed").is_err(),
        "it is read-only"
    );

    pool.seal(&one)?;
    pool.seal(&one)?;
    assert!(info(&one)?.read_only);
    pool.snapshot(&one, &directory.join("4"))?;
    assert!(
        !info(&directory.join("4"))?.read_only,
        "a snapshot can be written to"
    );
    pool.commit(directory)
}

fn deletion(pool: &dyn Pool, directory: &Path) -> io::Result<()> {
    let outer = directory.join("4");
    pool.create(&outer.join("inner"))?;
    pool.create(&outer.join("inner").join("innermost"))?;
    assert_eq!(pool.delete(&outer)?, Change::Made);
    assert_eq!(pool.delete(&outer)?, Change::Already);
    assert_eq!(
        pool.delete(&directory.join("3"))?,
        Change::Made,
        "read-only ones too"
    );

    let plain = directory.join("plain");
    assert_eq!(pool.make_directory(&plain)?, Change::Made);
    assert_eq!(pool.make_directory(&plain)?, Change::Already);
    pool.write(&plain.join("file"), b"")?;
    assert_eq!(pool.info(&plain)?, None);
    assert!(pool.delete(&plain).is_err(), "it is no subvolume");
    assert!(plain.join("file").is_file(), "and is left as it was");
    assert!(pool.remove_directory(&plain).is_err(), "it is not empty");
    assert_eq!(pool.unlink(&plain.join("file"))?, Change::Made);
    assert_eq!(pool.unlink(&plain.join("file"))?, Change::Already);
    assert_eq!(pool.remove_directory(&plain)?, Change::Made);
    assert_eq!(pool.remove_directory(&plain)?, Change::Already);
    Ok(())
}

fn names(pool: &dyn Pool, directory: &Path) -> io::Result<()> {
    let (one, other) = (directory.join("1"), directory.join("other"));
    pool.freeze(&one, &other)?;
    let uuid = |path: &Path| Ok::<_, io::Error>(pool.info(path)?.map(|it| it.uuid));
    let before = (uuid(&one)?, uuid(&other)?);
    pool.exchange(&one, &other)?;
    assert_eq!(
        (uuid(&other)?, uuid(&one)?),
        before,
        "read-only ones change places"
    );
    pool.rename(&other, &directory.join("renamed"))?;
    assert_eq!(uuid(&directory.join("renamed"))?, before.0);

    let (link, incoming) = (directory.join("link"), directory.join("incoming"));
    pool.link(Path::new("1"), &link)?;
    assert_eq!(pool.info(&link)?, None, "a link is not followed");
    pool.link(Path::new("renamed"), &incoming)?;
    pool.rename(&incoming, &link)?;
    assert_eq!(fs::read_link(&link)?, Path::new("renamed"));
    assert!(!incoming.is_symlink());
    Ok(())
}
