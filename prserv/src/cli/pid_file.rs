//! Reading pid files. They lie in `/tmp`, where every user can create them.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Pid, geteuid};

/// The maximum length of a pid file.
const BYTES_MAX: u64 = 64;

/// The programs that a pid file may name.
const PROGRAMS: [&str; 2] = ["prserv", "bitbake-prserv"];

/// Reads a pid file.
///
/// # Errors
/// The file is missing, not a regular file, or belongs to another user than root or this one.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let file = sys::untrusted::open(directory, name)?;
    let owner = file.metadata()?.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        let text = format!("it belongs to another user ({owner})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the process that the text of a pid file names, if it is a running PR server.
pub(super) fn running_server(text: &str) -> Option<Pid> {
    let pid = parse(text).filter(|pid| is_running(*pid))?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // The program of another user's process is hidden; the arguments are not.
    let program = fs::read_link(format!("/proc/{pid}/exe"))
        .unwrap_or_else(|_| OsStr::from_bytes(first(&arguments)).into());
    is_server(&program, &arguments).then_some(pid)
}

/// Returns true until a process has ended, also if it belongs to another user. A process that has
/// ended may still have its id until its parent has asked for its status.
pub(super) fn is_running(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|status| !has_ended(&status))
}

/// Reads the state after the name, which may contain anything, proc_pid_stat(5).
fn has_ended(status: &str) -> bool {
    let state = status.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    state.is_none_or(|state| state.starts_with(['Z', 'X']))
}

fn first(arguments: &[u8]) -> &[u8] {
    arguments
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
}

/// Parses the id of one process. Numbers up to 1 name init, groups or all processes.
fn parse(text: &str) -> Option<Pid> {
    let number: i32 = text.trim().parse().ok()?;
    (number > 1).then(|| Pid::from_raw(number))
}

/// Returns true for a PR server: this program under any of its names, or BitBake's Python script.
fn is_server(program: &Path, arguments: &[u8]) -> bool {
    let name = program.file_name().unwrap_or_default().as_bytes();
    // The kernel appends this text after an upgrade has replaced the program.
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    let is_known = |name: &[u8]| PROGRAMS.iter().any(|known| known.as_bytes() == name);
    let script = arguments.split(|byte| *byte == 0).nth(1);
    let script = script.and_then(|path| Path::new(OsStr::from_bytes(path)).file_name());
    is_known(name)
        || name.starts_with(b"python") && script.is_some_and(|name| is_known(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_id_of_one_ordinary_process_is_accepted() {
        assert_eq!(parse("42\n"), Some(Pid::from_raw(42)));
        for text in ["-1", "0", "1", "-42", "", "x", "42 43", "99999999999"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_process_has_ended_when_only_its_status_is_left() {
        for (status, expected) in [
            ("42 (prserv) S 1 42", false),
            ("42 (prserv) Z 1 42", true),
            ("42 (a) Z) R 1 42", false),
            ("", true),
        ] {
            assert_eq!(has_ended(status), expected, "{status}");
        }
        assert!(is_running(Pid::this()));
    }

    #[test]
    fn a_server_is_recognized_by_its_program() {
        for (program, arguments, expected) in [
            ("/usr/bin/prserv", "prserv\0serve\0", true),
            ("/opt/bitbake-prserv", "x\0", true),
            ("/usr/bin/prserv (deleted)", "prserv\0serve\0", true),
            (
                "/usr/bin/python3.12",
                "python3\0/b/bin/bitbake-prserv\0--start\0",
                true,
            ),
            (
                "/usr/bin/python3.12",
                "python3\0other.py\0bitbake-prserv\0",
                false,
            ),
            ("/usr/bin/vim", "vim\0/usr/bin/bitbake-prserv\0", false),
            ("/usr/bin/prserv-other", "prserv\0", false),
            ("/usr/bin/sleep", "prserv\0serve\0", false),
        ] {
            let program = Path::new(program);
            assert_eq!(
                is_server(program, arguments.as_bytes()),
                expected,
                "{program:?}"
            );
        }
        assert_eq!(running_server(&std::process::id().to_string()), None);
    }

    #[test]
    fn a_pid_file_is_a_regular_file_of_this_user() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::File::create(path("plain")).unwrap();
        assert_eq!(read(&path("plain")).unwrap(), "");
        std::os::unix::fs::symlink("plain", path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["link", "pipe", "missing"] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        if geteuid().is_root() {
            std::os::unix::fs::chown(path("plain"), Some(65534), None).unwrap();
            let error = read(&path("plain")).unwrap_err();
            assert!(error.to_string().contains("another user"), "{error}");
        }
    }
}
