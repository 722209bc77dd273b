//! Files that others have made, in images, archives and snapshots.
//!
//! Such a name may be a symbolic link to any file of the host, a pipe whose other end nobody
//! opens, a device, or a file of any size. The functions here return regular files of limited
//! size, and never wait.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

/// Opens a regular file below a directory for reading. Follows no symbolic link below the
/// directory.
///
/// # Errors
/// The file is missing or not a regular file, its path has other components than names, or one
/// of them is a symbolic link.
pub fn open(directory: &Path, path: impl AsRef<Path>) -> io::Result<File> {
    open_with(directory, path.as_ref(), OFlags::RDONLY)
}

/// Opens a regular file below a directory for reading, as [`open`] does, but follows symbolic
/// links that stay below the directory.
///
/// # Errors
/// Those of [`open`], except for such links. Where a seccomp filter forbids the system call
/// `openat2`, no link is followed.
pub fn open_beneath(directory: impl AsFd, path: impl AsRef<Path>) -> io::Result<File> {
    let access = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&directory, path.as_ref(), access, Mode::empty(), resolve) {
        Ok(file) => regular(file.into()),
        Err(Errno::XDEV) => Err(io::Error::other("it leads outside of its directory")),
        Err(Errno::NOSYS) => walk(
            directory.as_fd().try_clone_to_owned()?,
            path.as_ref(),
            OFlags::RDONLY,
        ),
        Err(error) => Err(describe(error)),
    }
}

/// Opens a regular file as [`open`] does, for reading and writing.
///
/// # Errors
/// Those of [`open`].
pub fn open_writable(directory: &Path, path: impl AsRef<Path>) -> io::Result<File> {
    open_with(directory, path.as_ref(), OFlags::RDWR)
}

/// Returns the path of a file in a directory that is the root of a system: absolute links lead
/// below the directory, too. The path is the host's, without links.
///
/// # Errors
/// The file does not exist there, or a seccomp filter forbids the system call `openat2`.
pub fn resolve_in_root(root: &Path, path: impl AsRef<Path>) -> io::Result<PathBuf> {
    let flags = OFlags::CLOEXEC | OFlags::PATH;
    let root = openat(CWD, root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(&root, path.as_ref(), flags, Mode::empty(), resolve)?;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Reads a text file as [`open`] does.
///
/// # Errors
/// Those of [`open`]; or the file has more than `bytes_max` bytes or is not UTF-8.
pub fn read_text(directory: &Path, path: impl AsRef<Path>, bytes_max: u64) -> io::Result<String> {
    let file = open(directory, path)?;
    let mut text = String::new();
    // The file may grow while it is read.
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::other(format!(
            "it is larger than {bytes_max} bytes"
        )));
    }
    Ok(text)
}

fn open_with(directory: &Path, path: &Path, access: OFlags) -> io::Result<File> {
    let flags = OFlags::CLOEXEC | OFlags::PATH | OFlags::DIRECTORY;
    walk(openat(CWD, directory, flags, Mode::empty())?, path, access)
}

/// Opens a regular file below a directory, component by component, without following links.
fn walk(mut parent: OwnedFd, path: &Path, access: OFlags) -> io::Result<File> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else {
            return Err(io::Error::other("its path has other components than names"));
        };
        if parts.peek().is_some() {
            let flags = flags | OFlags::PATH | OFlags::DIRECTORY;
            parent = openat(&parent, name, flags, Mode::empty()).map_err(describe)?;
            continue;
        }
        // Without NONBLOCK, the open of a pipe would wait for its other end.
        let flags = flags | access | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = openat(&parent, name, flags, Mode::empty()).map_err(describe)?;
        return regular(file.into());
    }
    Err(not_regular())
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(not_regular())
    }
}

/// Explains the errors of entries that are not regular files.
fn describe(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("it is a symbolic link"),
        // A socket or a device without a driver; a directory opened for writing.
        Errno::NXIO | Errno::NODEV | Errno::ISDIR => not_regular(),
        error => error.into(),
    }
}

fn not_regular() -> io::Error {
    io::Error::other("it is not a regular file")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    #[test]
    fn links_of_a_root_lead_below_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        let systemd = root.join("usr/lib/systemd/systemd");
        std::fs::File::create(&systemd).unwrap();
        symlink("/usr/lib/systemd/systemd", root.join("init")).unwrap();
        symlink("../../../../usr/lib", root.join("lib")).unwrap();
        for path in ["init", "lib/systemd/systemd", "/init"] {
            assert_eq!(resolve_in_root(&root, path).unwrap(), systemd);
        }
        symlink("/etc/passwd", root.join("passwd")).unwrap();
        resolve_in_root(&root, "passwd").unwrap_err();
    }

    #[test]
    fn links_are_followed_only_below_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("d")).unwrap();
        crate::file::replace(&root.join("d/file"), b"").unwrap();
        let links = [
            ("link", "d/file"),
            ("d/up", "../d/file"),
            ("directory", "d"),
            ("absolute", "/etc/passwd"),
            ("relative", "../../etc/passwd"),
            ("magic", "/proc/self/exe"),
            ("loop", "loop"),
            ("dangling", "missing"),
        ];
        for (name, target) in links {
            symlink(target, root.join(name)).unwrap();
        }
        mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let opened = File::open(root).unwrap();
        let is_opened = |name: &&str| open_beneath(&opened, name).is_ok();
        let names = ["link", "d/up", "directory/file", "d/file"];
        assert!(names.iter().all(is_opened));
        let names = [
            "absolute",
            "relative",
            "magic",
            "loop",
            "dangling",
            "pipe",
            "d",
            "directory",
            "../etc/passwd",
            "/etc/passwd",
        ];
        assert_eq!(names.iter().find(|it| is_opened(it)), None);
    }

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        std::fs::create_dir(root.join("d")).unwrap();
        for (name, content) in [("empty", ""), ("d/text", "text"), ("long", "0123456789")] {
            crate::file::replace(&root.join(name), content.as_bytes()).unwrap();
        }
        symlink("d/text", root.join("link")).unwrap();
        symlink("d", root.join("linked")).unwrap();
        symlink("/dev/zero", root.join("zero")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, root.join("pipe"), FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let table = [
            ("empty", Ok("")),
            ("d/text", Ok("text")),
            ("d/./text", Ok("text")),
            ("./d", Err("other components")),
            ("long", Err("larger than 9 bytes")),
            ("link", Err("symbolic link")),
            ("linked/text", Err("Not a directory")),
            ("zero", Err("symbolic link")),
            ("pipe", Err("not a regular file")),
            ("socket", Err("not a regular file")),
            ("d", Err("not a regular file")),
            ("", Err("not a regular file")),
            ("../x", Err("other components")),
            ("/etc/passwd", Err("other components")),
            ("missing", Err("No such file")),
        ];
        for (path, expected) in table {
            let found = read_text(root, path, 9);
            match expected {
                Ok(text) => assert_eq!(found.unwrap(), text, "{path}"),
                Err(text) => {
                    let error = found.unwrap_err().to_string();
                    assert!(error.contains(text), "{path}: {error}");
                }
            }
            assert_eq!(open_writable(root, path).is_ok(), open(root, path).is_ok());
        }
    }
}
